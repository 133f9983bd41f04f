//! The settings of sinks.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use registry::{AddressPolicy, LEASE_RENEW_INTERVAL};
use system::random::random;

/// The settings of sinks.
#[derive(Clone, Debug)]
pub struct Config {
    /// The addresses that drains may connect to, checked after each resolution.
    pub addresses: AddressPolicy,
    /// The replica that this process is; drains are distributed over all replicas.
    pub replica: Replica,
    /// The name under which this process holds leases, unique among all processes.
    pub holder: String,
    /// The retention of the bus. A drain that delivered nothing for longer gets a gap notice (L10).
    pub retention: Duration,
    /// The maximum size of one drain's buffer, unconfirmed lines included, in bytes: at most half of
    /// what reassembly buffers.
    pub max_buffer_bytes: usize,
    /// The maximum size of all buffers in bytes. Above it, a drain buffers one batch at a time.
    pub max_total_buffer_bytes: usize,
    /// The timeout of name resolution, of a TCP connection and of a TLS handshake.
    pub connect_timeout: Duration,
    /// The timeout of a response to a frame.
    pub response_timeout: Duration,
    /// The lifetime of a connection, so that new addresses of a receiver are found. Varies by 10%.
    pub max_connection_age: Duration,
    /// The maximum pause between two attempts.
    pub max_backoff: Duration,
    /// The maximum `Retry-After` that is honored.
    pub max_retry_after: Duration,
    /// The interval of reports to the registry. Changes of state are reported within a second.
    pub report_interval: Duration,
    /// The minimum interval between two notices about the same problem of a drain.
    pub notice_interval: Duration,
    /// Additional certificate authorities, PEM.
    pub ca: Option<PathBuf>,
    /// The client certificate and its private key, PEM.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// The name server, by default those of `/etc/resolv.conf`.
    pub name_server: Option<SocketAddr>,
}

/// One of several replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replica {
    /// The index, from 0.
    pub index: u32,
    /// The number of replicas, at least 1.
    pub count: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            addresses: AddressPolicy::default(),
            replica: Replica { index: 0, count: 1 },
            holder: format!("sinks-{:016x}", random::<u64>()),
            retention: Duration::from_secs(24 * 3600),
            max_buffer_bytes: 32 << 20,
            max_total_buffer_bytes: 512 << 20,
            connect_timeout: Duration::from_secs(10),
            response_timeout: Duration::from_secs(30),
            max_connection_age: Duration::from_secs(30 * 60),
            max_backoff: Duration::from_secs(60),
            max_retry_after: Duration::from_secs(3600),
            report_interval: LEASE_RENEW_INTERVAL,
            notice_interval: Duration::from_secs(60),
            ca: None,
            identity: None,
            name_server: None,
        }
    }
}
