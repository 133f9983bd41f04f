//! Connections to receivers over TCP or TLS, with a count of the bytes written to the socket.

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

use registry::DrainTarget;
use rustls::pki_types::ServerName;
use system::net::{SocketOptions, SocketQueue, TcpStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

use super::{error::DeliveryError, resolve::HostResolver, tls::TlsConnectors};
use crate::config::Config;

/// How long sent bytes may stay unacknowledged before the kernel closes the connection.
const USER_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a connection may be idle before keep-alive probes are sent.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// The interval between keep-alive probes.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// The options of a connection to a receiver.
const SOCKET_OPTIONS: SocketOptions = SocketOptions {
    keepalive: Some((KEEPALIVE, KEEPALIVE_INTERVAL)),
    user_timeout: Some(USER_TIMEOUT),
    send_buffer: None,
};

/// Resolves and connects to receivers.
pub(crate) struct Connector {
    pub(crate) resolver: HostResolver,
    tls: TlsConnectors,
    connect_timeout: Duration,
}

/// A connection to a receiver.
pub(crate) struct Connection {
    /// The stream, with TLS if the drain uses it.
    pub(crate) stream: Either<CountingStream, Box<TlsStream<CountingStream>>>,
    /// The number of bytes written to the socket; with TLS, encrypted bytes.
    pub(crate) written: WrittenBytes,
    /// Access to the number of unacknowledged bytes.
    pub(crate) socket: SocketQueue,
}

/// A counter of bytes written to a socket.
#[derive(Clone, Default)]
pub(crate) struct WrittenBytes(Arc<AtomicU64>);

impl WrittenBytes {
    pub(crate) fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Connector {
    /// Creates a connector with these settings.
    ///
    /// # Errors
    /// A setting that cannot be used.
    pub(crate) fn new(config: &Config) -> Result<Self, String> {
        Ok(Self {
            resolver: HostResolver::new(config.name_server, config.addresses.clone())?,
            tls: TlsConnectors::new(config)?,
            connect_timeout: config.connect_timeout,
        })
    }

    /// Resolves the host, connects to the first address that accepts, and performs the TLS
    /// handshake.
    ///
    /// # Errors
    /// The error of the last address.
    ///
    /// *Cancel safety*: dropping the future closes the connection.
    pub(crate) async fn open(&self, target: &DrainTarget) -> Result<Connection, DeliveryError> {
        let timed_out = |_| DeliveryError::Timeout(self.connect_timeout);
        let found = tokio::time::timeout(self.connect_timeout, self.resolver.resolve(target)).await;
        let stream = self.connect(&found.map_err(timed_out)??).await?;
        let socket = SocketQueue::of(&stream).map_err(DeliveryError::Connect)?;
        self.secure(target, stream, socket).await
    }

    /// Connects to the first address that accepts, in this order.
    ///
    /// # Errors
    /// The error of the last address.
    pub(crate) async fn connect(&self, addresses: &[SocketAddr]) -> Result<TcpStream, DeliveryError> {
        let mut last_error = DeliveryError::Connect(ErrorKind::AddrNotAvailable.into());
        // Half the timeout per address, so that an unresponsive one does not use up all the time.
        let timeout = if addresses.len() > 1 {
            self.connect_timeout / 2
        } else {
            self.connect_timeout
        };
        for address in addresses {
            match tokio::time::timeout(timeout, system::net::connect(*address)).await {
                Ok(Ok(stream)) => {
                    system::net::configure(&stream, &SOCKET_OPTIONS).map_err(DeliveryError::Connect)?;
                    return Ok(stream);
                }
                Ok(Err(error)) => last_error = DeliveryError::Connect(error),
                Err(_) => last_error = DeliveryError::Timeout(timeout),
            }
        }
        Err(last_error)
    }

    /// Performs the TLS handshake if the drain uses TLS.
    ///
    /// # Errors
    /// [`DeliveryError::Tls`], [`DeliveryError::Timeout`].
    pub(crate) async fn secure(
        &self,
        target: &DrainTarget,
        stream: TcpStream,
        socket: SocketQueue,
    ) -> Result<Connection, DeliveryError> {
        let written = WrittenBytes::default();
        let counted = CountingStream {
            stream,
            written: written.clone(),
        };
        if !target.protocol.is_tls() {
            let stream = Either::Left(counted);
            return Ok(Connection {
                stream,
                written,
                socket,
            });
        }
        let name = ServerName::try_from(target.host.clone());
        let name = name.map_err(|error| DeliveryError::Tls(io::Error::other(error)))?;
        let connecting = self.tls.connector(target.verify).connect(name, counted);
        let secured = tokio::time::timeout(self.connect_timeout, connecting).await;
        let secured = secured
            .map_err(|_| DeliveryError::Timeout(self.connect_timeout))?
            .map_err(DeliveryError::Tls)?;
        let stream = Either::Right(Box::new(secured));
        Ok(Connection {
            stream,
            written,
            socket,
        })
    }
}

/// A socket that counts written bytes.
pub(crate) struct CountingStream {
    stream: TcpStream,
    written: WrittenBytes,
}

impl AsyncRead for CountingStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for CountingStream {
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
