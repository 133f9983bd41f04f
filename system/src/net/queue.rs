//! The bytes of a socket that the peer's kernel has not acknowledged.
//!
//! The only file with unsafe code: no crate has a safe wrapper for this ioctl.

#![allow(unsafe_code, reason = "no crate has a safe wrapper for SIOCOUTQ")]

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use rustix::ioctl::{Getter, Opcode, ioctl};

use super::TcpStream;

/// `SIOCOUTQ`, the same number as `TIOCOUTQ`.
///
/// *Source*: tcp(7).
const SIOCOUTQ: Opcode = request();

/// The number depends on the architecture. If the kernel does not support it, the ioctl fails and
/// nothing counts as acknowledged.
const fn request() -> Opcode {
    if cfg!(any(
        target_arch = "mips",
        target_arch = "mips64",
        target_arch = "sparc64"
    )) {
        0x7472
    } else if cfg!(any(target_arch = "powerpc", target_arch = "powerpc64")) {
        0x4004_7473
    } else {
        0x5411
    }
}

/// Access to a socket's send queue while TLS owns the stream.
pub struct SocketQueue(Repr);

enum Repr {
    /// A second descriptor of the socket.
    Real(OwnedFd),
    #[cfg(feature = "simulation")]
    Simulated(std::sync::Arc<dyn Fn() -> io::Result<u64> + Send + Sync>),
}

impl SocketQueue {
    /// Duplicates the descriptor of a connection.
    ///
    /// # Errors
    /// The process has no descriptor left.
    pub fn of(stream: &TcpStream) -> io::Result<Self> {
        #[cfg(feature = "simulation")]
        let stream = match stream {
            TcpStream::Real(stream) => stream,
            TcpStream::Simulated(socket) => return Ok(Self(Repr::Simulated(socket.unacknowledged()))),
        };
        Ok(Self(Repr::Real(stream.as_fd().try_clone_to_owned()?)))
    }

    /// The number of bytes written and not acknowledged.
    ///
    /// # Errors
    /// The kernel does not support the request.
    pub fn unacknowledged(&self) -> io::Result<u64> {
        match &self.0 {
            Repr::Real(socket) => {
                // SAFETY: SIOCOUTQ writes one int to the given address and nothing else. The
                // descriptor is a TCP socket and stays open while `self` exists.
                let bytes: i32 = unsafe { ioctl(socket, Getter::<SIOCOUTQ, i32>::new()) }?;
                Ok(u64::try_from(bytes).unwrap_or_default())
            }
            #[cfg(feature = "simulation")]
            Repr::Simulated(unacknowledged) => unacknowledged(),
        }
    }
}
