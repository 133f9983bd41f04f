//! The state of a drain, as the process that runs it reports it to others.

use serde::{Deserialize, Serialize};

/// The connection state of a drain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DrainState {
    /// Connecting, or no line has been due yet.
    #[default]
    Connecting,
    /// Connected to the receiver.
    Connected,
    /// Connected, but the receiver rejects the lines, which are lost.
    Refusing,
    /// The last attempt failed; it is retried.
    Failing,
}

impl DrainState {
    /// Every state.
    pub const ALL: [Self; 4] = [Self::Connecting, Self::Connected, Self::Refusing, Self::Failing];

    /// The name in JSON and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Connected => "connected",
            Self::Refusing => "refusing",
            Self::Failing => "failing",
        }
    }
}

/// The state of a drain. Counters start at 0 when a process takes over the drain; the default is
/// the report of a drain that has not run yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainReport {
    /// The connection state.
    pub state: DrainState,
    /// When the connection was made, in seconds since 1970.
    pub connected_since: Option<u64>,
    /// Lines read from the bus and not sent yet, without those still on the bus.
    pub lag_lines: u64,
    /// The age of the oldest of them, in seconds.
    pub lag_seconds: u64,
    /// Lines whose delivery is confirmed.
    pub delivered: u64,
    /// Lines resent because their delivery was not confirmed.
    pub resent: u64,
    /// Lines that are lost: rejected by the receiver, or no longer on the bus.
    pub dropped: u64,
    /// The last error, without secrets.
    pub last_error: Option<String>,
    /// When it occurred, in seconds since 1970.
    pub last_error_at: Option<u64>,
}
