//! The API port. Faults close it, reopen it and break its connections.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use system::net::{self, SocketOptions, TcpListener, TcpStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// A listener that closes while `down` is true.
pub(crate) struct ApiListener {
    addr: SocketAddr,
    open: Option<TcpListener>,
    down: watch::Receiver<bool>,
    connections: CancellationToken,
}

impl ApiListener {
    /// Binds the port.
    pub(crate) async fn bind(addr: SocketAddr, down: watch::Receiver<bool>) -> io::Result<Self> {
        let listener = net::bind(addr).await?;
        let addr = listener.local_addr()?;
        Ok(Self {
            addr,
            open: Some(listener),
            down,
            connections: CancellationToken::new(),
        })
    }

    /// Returns the bound address; it does not change when the port is closed and reopened.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Breaks all connections, waits until `down` is false and binds the port again.
    async fn reopen(&mut self) -> TcpListener {
        self.connections.cancel();
        self.connections = CancellationToken::new();
        // A dropped sender means that the simulation ends and nothing calls `accept` again.
        let _ = self.down.wait_for(|down| !down).await;
        loop {
            match net::bind(self.addr).await {
                Ok(listener) => return listener,
                Err(error) => {
                    tracing::warn!(addr = %self.addr, %error, "API port bind failed, retrying");
                    sleep(RETRY).await;
                }
            }
        }
    }
}

impl Listener for ApiListener {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        loop {
            let Some(listener) = &self.open else {
                let listener = self.reopen().await;
                self.open = Some(listener);
                continue;
            };
            let mut down = self.down.clone();
            let closing = async move { down.wait_for(|down| *down).await.is_ok() };
            tokio::select! {
                biased;
                true = closing => self.open = None,
                accepted = listener.accept() => match accepted {
                    Ok((stream, peer)) => {
                        // Each line is sent at once, not together with the next one.
                        let _ = net::configure(&stream, &SocketOptions::default());
                        return (Connection::new(stream, &self.connections), peer);
                    }
                    Err(error) => {
                        tracing::warn!(%error, "accept failed");
                        sleep(RETRY).await;
                    }
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.addr)
    }
}

/// A connection that fails after its port is closed.
pub(crate) struct Connection {
    stream: TcpStream,
    broken: Pin<Box<WaitForCancellationFutureOwned>>,
    token: CancellationToken,
}

impl Connection {
    fn new(stream: TcpStream, token: &CancellationToken) -> Self {
        Self {
            stream,
            broken: Box::pin(token.clone().cancelled_owned()),
            token: token.clone(),
        }
    }

    fn check(&self) -> io::Result<()> {
        if self.token.is_cancelled() {
            Err(io::ErrorKind::ConnectionReset.into())
        } else {
            Ok(())
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // Also registers a wake-up for the case that the port closes while nothing is read.
        if self.broken.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_write(context, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_write_vectored(context, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Pause before retrying after a transient error: no free descriptor, or the port still in use.
const RETRY: Duration = Duration::from_millis(50);
