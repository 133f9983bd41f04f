//! Sockets of the operating system or of a simulation.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net,
};

use crate::simulation::{self, Acceptor, Socket};

/// A connection.
pub enum TcpStream {
    /// A socket of the operating system.
    Real(net::TcpStream),
    /// A simulated one.
    Simulated(Box<dyn Socket>),
}

impl TcpStream {
    pub(super) async fn connect(address: SocketAddr) -> io::Result<Self> {
        match simulation::current() {
            Some(machine) => machine.network().connect(address).await.map(Self::Simulated),
            None => net::TcpStream::connect(address).await.map(Self::Real),
        }
    }

    /// Returns the address of this side.
    ///
    /// # Errors
    /// The error of the operating system.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Real(stream) => stream.local_addr(),
            Self::Simulated(socket) => Ok(socket.local_addr()),
        }
    }

    /// Returns the address of the other side.
    ///
    /// # Errors
    /// The error of the operating system.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Real(stream) => stream.peer_addr(),
            Self::Simulated(socket) => Ok(socket.peer_addr()),
        }
    }

    /// Returns the socket of the operating system, if it is one.
    pub fn real(&self) -> Option<&net::TcpStream> {
        match self {
            Self::Real(stream) => Some(stream),
            Self::Simulated(_) => None,
        }
    }
}

impl AsyncRead for TcpStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Real(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Simulated(socket) => Pin::new(socket).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for TcpStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Real(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Simulated(socket) => Pin::new(socket).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Real(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Simulated(socket) => Pin::new(socket).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Real(stream) => stream.is_write_vectored(),
            Self::Simulated(socket) => socket.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Real(stream) => Pin::new(stream).poll_flush(cx),
            Self::Simulated(socket) => Pin::new(socket).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Real(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Simulated(socket) => Pin::new(socket).poll_shutdown(cx),
        }
    }
}

/// A listening socket.
pub enum TcpListener {
    /// A socket of the operating system.
    Real(net::TcpListener),
    /// A simulated one.
    Simulated(Box<dyn Acceptor>),
}

impl TcpListener {
    pub(super) async fn bind(address: SocketAddr) -> io::Result<Self> {
        match simulation::current() {
            Some(machine) => machine.network().bind(address).map(Self::Simulated),
            None => net::TcpListener::bind(address).await.map(Self::Real),
        }
    }

    /// Waits for a connection and returns it with the address of the client.
    ///
    /// # Errors
    /// The error of the operating system.
    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        match self {
            Self::Real(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok((TcpStream::Real(stream), peer))
            }
            Self::Simulated(acceptor) => {
                let socket = acceptor.accept().await?;
                let peer = socket.peer_addr();
                Ok((TcpStream::Simulated(socket), peer))
            }
        }
    }

    /// Returns the address.
    ///
    /// # Errors
    /// The error of the operating system.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Real(listener) => listener.local_addr(),
            Self::Simulated(acceptor) => Ok(acceptor.local_addr()),
        }
    }
}

impl From<net::TcpListener> for TcpListener {
    fn from(listener: net::TcpListener) -> Self {
        Self::Real(listener)
    }
}
