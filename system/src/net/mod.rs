//! TCP sockets.

#![allow(clippy::disallowed_methods, reason = "the only place that opens sockets")]

mod queue;
#[cfg(not(feature = "simulation"))]
mod stream {
    //! The operating system's sockets.

    pub use tokio::net::{TcpListener, TcpStream};
}
#[cfg(feature = "simulation")]
mod stream;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use socket2::{SockRef, TcpKeepalive};

pub use queue::SocketQueue;
pub use stream::{TcpListener, TcpStream};

/// Options of a connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct SocketOptions {
    /// Time without traffic after which keep-alive probes are sent, and the interval between them.
    pub keepalive: Option<(Duration, Duration)>,
    /// How long sent bytes may stay unacknowledged before the kernel closes the connection. Linux
    /// only.
    pub user_timeout: Option<Duration>,
    /// Size of the send buffer in bytes; the kernel doubles it for its bookkeeping.
    pub send_buffer: Option<usize>,
}

/// Connects to an address.
///
/// # Errors
/// The error of the operating system.
#[inline]
pub async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    TcpStream::connect(address).await
}

/// Listens on an address.
///
/// # Errors
/// The error of the operating system, for example that the address is in use.
#[inline]
pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Returns whether the current task runs in a simulation, whose network resolves host names.
#[inline]
pub fn is_simulated() -> bool {
    #[cfg(feature = "simulation")]
    return crate::simulation::current().is_some();
    #[cfg(not(feature = "simulation"))]
    false
}

/// Resolves a host name in a simulation. `None` outside of one.
#[inline]
#[cfg_attr(
    not(feature = "simulation"),
    allow(clippy::unused_async, reason = "a simulation waits")
)]
pub async fn simulated_lookup(host: &str) -> Option<io::Result<Vec<IpAddr>>> {
    #[cfg(feature = "simulation")]
    if let Some(machine) = crate::simulation::current() {
        return Some(machine.network().lookup(host).await);
    }
    let _ = host;
    None
}

/// Sets the options of a connection, and that each write is sent at once.
///
/// # Errors
/// The error of the operating system.
pub fn configure(stream: &TcpStream, options: &SocketOptions) -> io::Result<()> {
    #[cfg(feature = "simulation")]
    let Some(stream) = stream.real() else {
        return Ok(());
    };
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    if let Some((time, interval)) = options.keepalive {
        socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(time).with_interval(interval))?;
    }
    #[cfg(target_os = "linux")]
    if options.user_timeout.is_some() {
        socket.set_tcp_user_timeout(options.user_timeout)?;
    }
    if let Some(bytes) = options.send_buffer {
        socket.set_send_buffer_size(bytes)?;
    }
    Ok(())
}
