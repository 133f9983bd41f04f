//! Connections to receivers: resolves, connects and sends over UDP, TCP, TLS or HTTPS.
//!
//! Reads lines from a drain's reader and reports how each connection ended; it does not see leases or the registry.

pub(crate) mod connect;
pub(crate) mod error;
pub(crate) mod https;
pub(crate) mod outcome;
mod resolve;
pub(crate) mod socket_queue;
pub(crate) mod tcp;
mod tls;
pub(crate) mod udp;
mod unconfirmed;
