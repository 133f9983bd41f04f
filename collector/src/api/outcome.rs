//! Outcomes of one read of a log.

use std::time::Duration;

use crate::{metrics::ReconnectReason, stream::TailFingerprint};

/// How one read of a log ended.
#[derive(Debug)]
pub enum Outcome {
    /// The body ended cleanly after this many new lines.
    Ended { new_lines: u64, tail: TailFingerprint },
    /// A plain read of a running container ended.
    Polled { new_lines: u64 },
    /// The connection or the response failed; retry.
    Broken(String),
    /// A plain read of a running container found the last line read; follow it again.
    Resumed,
    /// The response does not contain the last line read; request another part of the log.
    Unresumed,
    /// The kubelet cannot read the log; retry.
    Unreadable,
    /// The API denied access; retry.
    Refused(String),
    /// The API server is overloaded; retry after this delay at the earliest.
    Busy(Duration),
    /// The follow is open but does not deliver lines that exist.
    Stalled,
    /// The node cannot serve another follow.
    NoFollow,
    /// Another container took the follow slot.
    SlotRevoked,
    /// The follow reached its maximum age.
    Renewed,
    /// The container has not started.
    NotStarted,
    /// The pod and its log were deleted.
    PodGone,
    /// The instance terminated, or the pod no longer lists it.
    StateChanged,
    /// The collector shuts down.
    Shutdown,
}

impl Outcome {
    /// Returns why the log cannot be read.
    pub fn failure(&self) -> Option<&str> {
        match self {
            Self::Broken(reason) | Self::Refused(reason) => Some(reason),
            Self::Unreadable => Some("the kubelet cannot read it"),
            Self::Busy(_) => Some("the API server is overloaded"),
            _ => None,
        }
    }

    /// Returns the reason to count for requesting the log again, or `None` if the log is not
    /// requested again.
    pub fn reconnect_reason(&self) -> Option<ReconnectReason> {
        match self {
            Self::Ended { .. } => Some(ReconnectReason::clean_end),
            Self::Broken(_) | Self::Unreadable => Some(ReconnectReason::broken),
            Self::Refused(_) => Some(ReconnectReason::refused),
            Self::Busy(_) => Some(ReconnectReason::busy),
            Self::Stalled => Some(ReconnectReason::silent),
            Self::NoFollow | Self::SlotRevoked => Some(ReconnectReason::no_follow),
            Self::Renewed => Some(ReconnectReason::renewed),
            Self::StateChanged => Some(ReconnectReason::changed),
            Self::Polled { .. }
            | Self::Resumed
            | Self::Unresumed
            | Self::NotStarted
            | Self::PodGone
            | Self::Shutdown => None,
        }
    }
}
