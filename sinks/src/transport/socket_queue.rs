//! The bytes of a socket that the peer's kernel has not acknowledged.
//!
//! The only file with unsafe code: no crate has a safe wrapper for this ioctl.

#![allow(unsafe_code, reason = "no crate has a safe wrapper for SIOCOUTQ")]

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use rustix::ioctl::{Getter, Opcode, ioctl};
use tokio::net::TcpStream;

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

/// A second descriptor of a socket, for queries while TLS owns the stream.
pub(crate) struct SocketQueue(OwnedFd);

impl SocketQueue {
    /// Duplicates the descriptor of a connection.
    ///
    /// # Errors
    /// The process has no descriptor left.
    pub(crate) fn of(stream: &TcpStream) -> io::Result<Self> {
        Ok(Self(stream.as_fd().try_clone_to_owned()?))
    }

    /// The number of bytes written and not acknowledged.
    ///
    /// # Errors
    /// The kernel does not support the request.
    pub(crate) fn unacknowledged(&self) -> io::Result<u64> {
        // SAFETY: SIOCOUTQ writes one int to the given address and nothing else. The descriptor is
        // a TCP socket and stays open while `self` exists.
        let bytes: i32 = unsafe { ioctl(&self.0, Getter::<SIOCOUTQ, i32>::new()) }?;
        Ok(u64::try_from(bytes).unwrap_or_default())
    }
}
