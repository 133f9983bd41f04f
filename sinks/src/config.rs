//! What sinks can be told.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use registry::{Addresses, LEASE_RENEWAL};

/// The settings of sinks.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where drains may lead: looked at with each dial, on the address that is dialled.
    pub addresses: Addresses,
    /// Which of how many replicas this is: drains are shared among them.
    pub replica: Replica,
    /// What this process is called among those that take leases. No other may be called so.
    pub holder: String,
    /// How long the bus keeps lines: a drain that took none for longer is told that some may be gone.
    pub retention: Duration,
    /// How many bytes of lines one drain may hold: what was sent and is not sure yet, and what waits.
    pub window_bytes: usize,
    /// How many all drains may hold. Near it a drain may hold one batch alone.
    pub windows_bytes: usize,
    /// How long a receiver may take to be connected to, TLS included.
    pub connect_wait: Duration,
    /// How long a receiver may take to answer a frame.
    pub answer_wait: Duration,
    /// How long a connection lives before it is made anew, so that a receiver's new addresses are found.
    pub connection_age: Duration,
    /// The longest pause between two tries.
    pub max_backoff: Duration,
    /// The longest that `Retry-After` is obeyed.
    pub max_retry_after: Duration,
    /// How often it is told how drains are. What begins or fails is told within a second.
    pub report_every: Duration,
    /// How often at most an app's log is told of the same trouble with a drain.
    pub notice_grain: Duration,
    /// Certificate authorities that are trusted besides the machine's, PEM.
    pub ca: Option<PathBuf>,
    /// What is shown to receivers that ask for it: certificate and key, PEM.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Who is asked for names. `None`: whom `/etc/resolv.conf` names.
    pub name_server: Option<SocketAddr>,
}

/// Which of how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replica {
    /// From 0.
    pub index: u32,
    /// At least 1.
    pub count: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            addresses: Addresses::default(),
            replica: Replica { index: 0, count: 1 },
            holder: format!("sinks-{:016x}", rand::random::<u64>()),
            retention: Duration::from_secs(24 * 3600),
            window_bytes: 16 << 20,
            windows_bytes: 512 << 20,
            connect_wait: Duration::from_secs(10),
            answer_wait: Duration::from_secs(30),
            connection_age: Duration::from_secs(30 * 60),
            max_backoff: Duration::from_secs(60),
            max_retry_after: Duration::from_secs(3600),
            report_every: LEASE_RENEWAL,
            notice_grain: Duration::from_secs(60),
            ca: None,
            identity: None,
            name_server: None,
        }
    }
}
