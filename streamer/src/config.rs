//! Configuration of the streamer.

use std::time::Duration;

/// Settings of a streamer.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Maximum number of history lines per request. A larger `num_lines` is lowered to it.
    pub max_num_lines: u64,
    /// Retention of the bus: how far history reaches, and how long streams are tracked.
    pub history: Duration,
    /// Bytes that one hub keeps in its ring: lines and their cached renderings. A tail that falls
    /// behind by more skips lines (L11).
    pub ring_bytes: usize,
    /// How far the fastest tail of an app may lag behind the bus before it skips lines. Until then
    /// the hub pauses and the bus keeps what does not fit into the ring.
    pub max_lag: Duration,
    /// Bytes that all rings keep. Above it, large rings shrink.
    pub total_ring_bytes: usize,
    /// Bytes of batches that one history read may hold. Above it, history is truncated to its
    /// newest lines (L15).
    pub history_bytes: usize,
    /// Bytes of history that all tails together may hold until it is sent. Near it, a history read
    /// gets less than `history_bytes`.
    pub total_history_bytes: usize,
    /// Limit on the duration of one history read. Above it, history is truncated (L15).
    pub history_timeout: Duration,
    /// Limit on the TLS handshake, and on receiving the head of each request.
    pub header_timeout: Duration,
    /// How long an app's subscription stays open after its last tail disconnects.
    pub idle_subscription_timeout: Duration,
    /// Maximum time without output in formats that have an invisible heartbeat: event streams,
    /// WebSockets and gzip.
    pub heartbeat: Duration,
    /// A connection is closed if the client reads none of the pending output for this long.
    pub stall_timeout: Duration,
    /// Maximum number of open connections. Requests on further ones are answered with 429.
    pub max_connections: usize,
    /// Maximum number of open log requests.
    pub max_tails: usize,
    /// Maximum number of open log requests per app.
    pub max_tails_per_app: usize,
    /// Maximum number of open log requests per client address (per /64 for IPv6). Requests from a
    /// loopback address are not counted.
    pub max_tails_per_address: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_num_lines: 1_000_000,
            history: Duration::from_secs(24 * 3600),
            ring_bytes: 8 << 20,
            max_lag: Duration::from_secs(60),
            total_ring_bytes: 512 << 20,
            history_bytes: 256 << 20,
            total_history_bytes: 1 << 30,
            history_timeout: Duration::from_secs(30),
            header_timeout: Duration::from_secs(20),
            idle_subscription_timeout: Duration::from_secs(60),
            heartbeat: Duration::from_secs(15),
            stall_timeout: Duration::from_secs(5 * 60),
            max_connections: 100_000,
            max_tails: 50_000,
            max_tails_per_app: 20_000,
            max_tails_per_address: 200,
        }
    }
}
