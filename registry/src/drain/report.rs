//! How a drain is, as who reads it says: for whoever asks another process.

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

use super::record::Drain;

/// Whether lines flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DrainState {
    /// The receiver is being dialled, or nothing was to be sent yet.
    #[default]
    Connecting,
    /// Lines flow.
    Connected,
    /// It failed, and is tried again.
    Failing,
}

impl DrainState {
    /// As it is written in answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Connected => "connected",
            Self::Failing => "failing",
        }
    }
}

/// How a drain is. Counts are since its reader began; the default is that of a drain that nobody has read yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainReport {
    /// Whether lines flow.
    pub state: DrainState,
    /// Since when, seconds since 1970.
    pub connected_since: Option<u64>,
    /// Lines that were read from the bus and are not sent yet. What the bus still keeps is not in it.
    pub lag_lines: u64,
    /// How old the oldest of them is, in seconds.
    pub lag_seconds: u64,
    /// Lines that the receiver has for sure.
    pub delivered: u64,
    /// Lines that were sent again, because it was not sure.
    pub resent: u64,
    /// Lines that it will never get: refused by it, or gone from the bus before it took them.
    pub dropped: u64,
    /// What went wrong last, without a secret.
    pub last_error: Option<String>,
    /// When, seconds since 1970.
    pub last_error_at: Option<u64>,
}

/// A step of a probe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ProbeStep {
    /// `resolve`, `connect`, `tls`, `send`.
    pub step: &'static str,
    /// Whether it went well.
    pub ok: bool,
    /// How long it took, in milliseconds.
    pub millis: u64,
    /// What came of it, without a secret.
    pub detail: String,
}

/// What came of a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeReport {
    /// The steps, up to the first that failed.
    pub steps: Vec<ProbeStep>,
    /// What was sent. Empty where it did not come to that.
    pub sent: Vec<u8>,
}

/// Who can try a drain.
pub trait Prober: Send + Sync + 'static {
    /// Resolves, connects, does TLS and sends one line, as the drain's reader would. Bounded in time.
    fn probe<'a>(&'a self, drain: &'a Drain) -> BoxFuture<'a, ProbeReport>;
}
