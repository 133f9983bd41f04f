//! Connections to receivers: resolves, connects and sends over UDP, TCP, TLS or HTTPS.
//!
//! Takes lines from a drain's reader and returns how the connection ended. It does not use leases,
//! the registry or notices.

pub(crate) mod connect;
pub(crate) mod error;
pub(crate) mod https;
pub(crate) mod outcome;
mod resolve;
pub(crate) mod tcp;
mod tls;
pub(crate) mod udp;
mod unconfirmed;
