//! A client's connection: its kernel buffers, and the stall timeout.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    extract::connect_info::Connected,
    serve::{IncomingStream, Listener},
};
use prometheus_client::metrics::counter::Counter;
use system::net::{SocketOptions, TcpListener, TcpStream};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::OwnedSemaphorePermit,
    time::Sleep,
};

/// Send buffer of a connection; the kernel doubles it for its bookkeeping. The default would hide
/// megabytes of lag per client.
const SEND_BUFFER_BYTES: usize = 128 * 1024;

/// Interval of TCP keep-alive probes: cloud networks drop connections that are idle for ten
/// minutes.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// Pause after an error of the listening socket, for example when the process has no descriptor
/// left.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// Accepts connections.
pub(crate) struct Connections {
    pub(crate) listener: TcpListener,
    /// See [`Config::stall_timeout`](crate::Config::stall_timeout).
    pub(crate) stall_timeout: Duration,
    /// Counts connections closed by that timeout.
    pub(crate) stalled: Counter,
}

/// The address of the client.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) SocketAddr);

impl Connected<IncomingStream<'_, Connections>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Connections>) -> Self {
        Self(*stream.remote_addr())
    }
}

impl Listener for Connections {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        let (stream, peer) = accept(&self.listener).await;
        let options = SocketOptions {
            keepalive: Some((KEEPALIVE, KEEPALIVE)),
            send_buffer: Some(SEND_BUFFER_BYTES),
            ..SocketOptions::default()
        };
        if let Err(error) = system::net::configure(&stream, &options) {
            tracing::debug!(%error, "cannot set socket options");
        }
        let connection = Connection {
            stream,
            stall_timeout: self.stall_timeout,
            pending: None,
            stalled: self.stalled.clone(),
            permit: None,
        };
        (connection, peer)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// Accepts the next connection. Errors are transient: those of a connection are ignored, those of
/// the listening socket are logged.
async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) if matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset) => {}
            Err(error) => {
                tracing::error!(%error, "accept failed, retrying");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// A connection whose writes fail if the client reads nothing for the stall timeout.
pub(crate) struct Connection {
    stream: TcpStream,
    stall_timeout: Duration,
    /// Runs while a write is pending.
    pending: Option<Pin<Box<Sleep>>>,
    stalled: Counter,
    /// Counts the connection until it is closed.
    pub(crate) permit: Option<OwnedSemaphorePermit>,
}

impl Connection {
    /// Applies the stall timeout to the result of a write.
    fn check_stall<T>(&mut self, cx: &mut Context<'_>, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.pending = None;
            return result;
        }
        let timeout = self.stall_timeout;
        let pending = self
            .pending
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        std::task::ready!(pending.as_mut().poll(cx));
        self.stalled.inc();
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.check_stall(cx, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.check_stall(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
