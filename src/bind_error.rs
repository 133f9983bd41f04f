//! The error of a listener that cannot bind its address.

use std::net::SocketAddr;

/// Describes a failed bind: the address, the cause, and the flag that changes it.
pub(crate) fn bind_error(addr: SocketAddr, error: &std::io::Error, flag: &str) -> anyhow::Error {
    let cause = match error.kind() {
        std::io::ErrorKind::AddrInUse => "address already in use".to_owned(),
        std::io::ErrorKind::AddrNotAvailable => "no interface of this machine has this address".to_owned(),
        std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    };
    anyhow::anyhow!("cannot bind {addr}: {cause}; choose another address or port with {flag} (port 0: any free port)")
}
