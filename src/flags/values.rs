//! Parsers of flag values.

use std::{net::SocketAddr, time::Duration};

use bytesize::ByteSize;
use ipnet::IpNet;

/// Parses a duration such as `30s`, `5m`, `1h30m` or `1d`.
///
/// # Errors
/// The expected form.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| "expected a duration such as 30s, 5m, 1h30m or 1d".to_owned())
}

/// Parses a size in bytes such as `64MiB` or `1GB`.
///
/// # Errors
/// The expected form.
pub(crate) fn bytes(text: &str) -> Result<ByteSize, String> {
    text.parse()
        .map_err(|_| "expected a size such as 64MiB or 1GB".to_owned())
}

/// Parses the address of a listener.
///
/// # Errors
/// The expected form.
pub(crate) fn listen(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .map_err(|_| "expected IP:PORT such as 127.0.0.1:8080".to_owned())
}

/// Parses a network.
///
/// # Errors
/// The expected form.
pub(crate) fn network(text: &str) -> Result<IpNet, String> {
    text.parse()
        .map_err(|_| "expected a network such as 10.0.0.0/8".to_owned())
}
