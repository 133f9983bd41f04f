//! Connections to receivers, in plain or within TLS, whose bytes are counted.

use std::{
    io::{self, ErrorKind},
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use registry::Target;
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

use crate::{
    config::Config, transport::error::Failure, transport::resolve::Names, transport::socket_queue::Queue,
    transport::tls::Tls,
};

/// How long a receiver may acknowledge nothing of what was sent, and a silent connection stay unasked.
const PEER_WAIT: Duration = Duration::from_secs(60);
const KEEPALIVE: Duration = Duration::from_secs(30);

/// Everything that is needed to dial.
pub(crate) struct Dialler {
    pub(crate) names: Names,
    tls: Tls,
    connect_wait: Duration,
}

/// A connection to a receiver.
pub(crate) struct Connection {
    /// What is read and written.
    pub(crate) stream: Either<Counted, Box<TlsStream<Counted>>>,
    /// How many bytes went to the socket: within TLS, what it made of them.
    pub(crate) written: Written,
    /// What of them its peer has not acknowledged.
    pub(crate) queue: Queue,
}

/// Bytes that were handed over to a socket.
#[derive(Clone, Default)]
pub(crate) struct Written(Arc<AtomicU64>);

impl Written {
    pub(crate) fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Dialler {
    /// By these settings.
    ///
    /// # Errors
    /// What cannot be used, in words.
    pub(crate) fn new(config: &Config) -> Result<Self, String> {
        Ok(Self {
            names: Names::new(config.name_server, config.addresses.clone())?,
            tls: Tls::new(config)?,
            connect_wait: config.connect_wait,
        })
    }

    /// Looks the receiver up, connects to the first of its addresses that answers, and does TLS where it is spoken.
    ///
    /// # Errors
    /// What went wrong with the last of them.
    pub(crate) async fn dial(&self, target: &Target) -> Result<Connection, Failure> {
        let late = |_| Failure::Late(self.connect_wait);
        let found = tokio::time::timeout(self.connect_wait, self.names.of(target)).await;
        let stream = self.connect(&found.map_err(late)??).await?;
        let queue = Queue::of(&stream).map_err(Failure::Connect)?;
        self.secure(target, stream, queue).await
    }

    /// Connects to the first of these that answers, in their order.
    ///
    /// # Errors
    /// What went wrong with the last of them.
    pub(crate) async fn connect(&self, addresses: &[SocketAddr]) -> Result<TcpStream, Failure> {
        let mut failed = Failure::Connect(ErrorKind::AddrNotAvailable.into());
        // One that does not answer shall not cost the next one all of the time.
        let each = if addresses.len() > 1 {
            self.connect_wait / 2
        } else {
            self.connect_wait
        };
        for address in addresses {
            match tokio::time::timeout(each, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    set_up(&stream).map_err(Failure::Connect)?;
                    return Ok(stream);
                }
                Ok(Err(error)) => failed = Failure::Connect(error),
                Err(_) => failed = Failure::Late(each),
            }
        }
        Err(failed)
    }

    /// Does TLS where it is spoken.
    ///
    /// # Errors
    /// [`Failure::Tls`], [`Failure::Late`].
    pub(crate) async fn secure(&self, target: &Target, stream: TcpStream, queue: Queue) -> Result<Connection, Failure> {
        let written = Written::default();
        let counted = Counted {
            stream,
            written: written.clone(),
        };
        if !target.protocol.is_tls() {
            let stream = Either::Left(counted);
            return Ok(Connection { stream, written, queue });
        }
        let name = ServerName::try_from(target.host.clone());
        let name = name.map_err(|error| Failure::Tls(io::Error::other(error)))?;
        let connecting = self.tls.connector(target.verify).connect(name, counted);
        let secured = tokio::time::timeout(self.connect_wait, connecting).await;
        let secured = secured
            .map_err(|_| Failure::Late(self.connect_wait))?
            .map_err(Failure::Tls)?;
        let stream = Either::Right(Box::new(secured));
        Ok(Connection { stream, written, queue })
    }
}

fn set_up(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 3))?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(PEER_WAIT))?;
    Ok(())
}

/// A socket whose written bytes are counted.
pub(crate) struct Counted {
    stream: TcpStream,
    written: Written,
}

impl AsyncRead for Counted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write(cx, data);
        if let Poll::Ready(Ok(bytes)) = wrote {
            self.written.0.fetch_add(bytes as u64, Ordering::Relaxed);
        }
        wrote
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
