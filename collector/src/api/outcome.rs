//! How one reading of a log ended.

use std::time::Duration;

use crate::{metrics::ReconnectReason, stream::TailFingerprint};

/// How one reading ended.
#[derive(Debug)]
pub enum Outcome {
    /// Cleanly, after so many new lines.
    Ended { new_lines: u64, tail: TailFingerprint },
    /// As it ended, and it was not to be followed.
    Polled { new_lines: u64 },
    /// To be tried again.
    Broken(String),
    /// As broken: the collector may not read it.
    Refused(String),
    /// As broken, and not before this has passed.
    Busy(Duration),
    /// Open, and without the lines that there are.
    Stalled,
    /// The node has no follow left.
    NoFollow,
    /// Another needs its follow more.
    SlotRevoked,
    /// It was open for as long as follows are.
    Renewed,
    /// There is no log yet.
    NotStarted,
    /// The pod is gone, and with it the log.
    PodGone,
    /// The instance terminated, or is shown no more.
    StateChanged,
    /// The collector stops.
    Shutdown,
}

impl Outcome {
    /// Why the log is asked for again. `None`: it is not, or there was none.
    pub fn reconnect_reason(&self) -> Option<ReconnectReason> {
        match self {
            Self::Ended { .. } => Some(ReconnectReason::clean_end),
            Self::Broken(_) => Some(ReconnectReason::broken),
            Self::Refused(_) => Some(ReconnectReason::refused),
            Self::Busy(_) => Some(ReconnectReason::busy),
            Self::Stalled => Some(ReconnectReason::silent),
            Self::NoFollow | Self::SlotRevoked => Some(ReconnectReason::no_follow),
            Self::Renewed => Some(ReconnectReason::renewed),
            Self::StateChanged => Some(ReconnectReason::changed),
            Self::Polled { .. } | Self::NotStarted | Self::PodGone | Self::Shutdown => None,
        }
    }
}
