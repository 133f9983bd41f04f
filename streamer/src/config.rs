//! What a streamer can be told.

use std::time::Duration;

/// A streamer's settings.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// The most lines of history one request can have; a larger `num_lines` means this many.
    pub max_num_lines: u64,
    /// How long the bus keeps a batch: how far history reaches, and how long a stream is remembered.
    pub history: Duration,
    /// How many bytes a hub keeps for its tails: lines, and their renderings in the formats that are read. A tail that falls behind by more is told what it missed.
    pub ring_bytes: usize,
    /// How far behind the bus an app's fastest reader may be before it is told what it missed. Until then the bus keeps for it what its hub has no room for.
    pub max_lag: Duration,
    /// How many bytes all hubs keep together. Above it, those that keep much keep less.
    pub rings_bytes: usize,
    /// How many bytes of batches one reading of history may hold. What needs more is cut to its newest lines, and says so.
    pub history_bytes: usize,
    /// How many bytes of history are held at once, of all readers to whom they are yet to be sent. Near it a reading may hold less.
    pub histories_bytes: usize,
    /// How long one reading of history may take. What takes longer is cut, and says so.
    pub history_wait: Duration,
    /// How long a client may take over TLS's handshake, and over the head of a request, also of the next one. Who sends a byte a second keeps nothing open for longer.
    pub head_wait: Duration,
    /// How long a hub stays after its last tail has gone.
    pub linger: Duration,
    /// How long a client is sent nothing at most, where its format has something that nobody sees: an event stream, a WebSocket, gzip.
    pub heartbeat: Duration,
    /// How long a client may take nothing of what waits for it before its connection is closed.
    pub stall: Duration,
    /// How many tails there may be.
    pub max_tails: usize,
    /// How many of one app.
    pub max_tails_per_app: usize,
    /// How many from one address (of IPv6: from one /64). This machine's own are not counted.
    pub max_tails_per_address: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_num_lines: 1_000_000,
            history: Duration::from_secs(24 * 3600),
            ring_bytes: 8 << 20,
            max_lag: Duration::from_secs(60),
            rings_bytes: 512 << 20,
            history_bytes: 256 << 20,
            histories_bytes: 1 << 30,
            history_wait: Duration::from_secs(30),
            head_wait: Duration::from_secs(20),
            linger: Duration::from_secs(60),
            heartbeat: Duration::from_secs(15),
            stall: Duration::from_secs(5 * 60),
            max_tails: 50_000,
            max_tails_per_app: 20_000,
            max_tails_per_address: 200,
        }
    }
}
