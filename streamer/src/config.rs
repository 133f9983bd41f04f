//! What a streamer can be told.

use std::time::Duration;

/// A streamer's settings.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// The most lines of history one request can have; a larger `num_lines` means this many.
    pub max_num_lines: u64,
    /// How long the bus keeps a batch: how far history reaches, and how long a stream is remembered.
    pub history: Duration,
    /// How many bytes of rendered lines a hub keeps for its tails. A tail that falls behind by more is told what it missed.
    pub ring_bytes: usize,
    /// How many bytes of batches one reading of history may hold. What needs more is cut to its newest lines, and says so.
    pub history_bytes: usize,
    /// How long a hub stays after its last tail has gone.
    pub linger: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_num_lines: 1_000_000,
            history: Duration::from_secs(24 * 3600),
            ring_bytes: 8 << 20,
            history_bytes: 256 << 20,
            linger: Duration::from_secs(60),
        }
    }
}
