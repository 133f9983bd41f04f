//! What of a socket's bytes its peer's kernel has not acknowledged yet.
//!
//! The one file with unsafe code: no crate wraps this request.

#![allow(unsafe_code, reason = "SIOCOUTQ, which no crate wraps")]

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use rustix::ioctl::{Getter, Opcode, ioctl};
use tokio::net::TcpStream;

/// `SIOCOUTQ`, the same number as `TIOCOUTQ`.
///
/// *Source*: tcp(7).
const SIOCOUTQ: Opcode = number();

/// It differs between processors. Where the kernel knows none of this number it refuses, and nothing is taken for confirmed.
const fn number() -> Opcode {
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

/// Asks a socket, also after the stream that it belonged to is within TLS.
pub(crate) struct Queue(OwnedFd);

impl Queue {
    /// Of this connection.
    ///
    /// # Errors
    /// The system's: it has no descriptor left.
    pub(crate) fn of(stream: &TcpStream) -> io::Result<Self> {
        Ok(Self(stream.as_fd().try_clone_to_owned()?))
    }

    /// Bytes that were written and not acknowledged.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn unacknowledged(&self) -> io::Result<u64> {
        // SAFETY: SIOCOUTQ writes one int to where it is told, and nothing else; the descriptor is a TCP socket's, and open as long as this is.
        let bytes: i32 = unsafe { ioctl(&self.0, Getter::<SIOCOUTQ, i32>::new()) }?;
        Ok(u64::try_from(bytes).unwrap_or_default())
    }
}
