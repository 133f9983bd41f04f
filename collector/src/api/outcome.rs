//! How one reading of a log ended.

use std::time::Duration;

use crate::{metrics::Ended, stream::Rest};

/// How one reading ended.
#[derive(Debug)]
pub enum Outcome {
    /// Cleanly, after so many new lines.
    Ended { news: u64, rest: Rest },
    /// As it ended, and it was not to be followed.
    Polled { news: u64 },
    /// To be tried again.
    Broken(String),
    /// As broken: the collector may not read it.
    Refused(String),
    /// As broken, and not before this has passed.
    Busy(Duration),
    /// Open, and without the lines that there are.
    Silent,
    /// The node has no follow left.
    NoFollow,
    /// Another needs its follow more.
    Yielded,
    /// It was open for as long as follows are.
    Renewed,
    /// There is no log yet.
    NotYet,
    /// The pod is gone, and with it the log.
    PodGone,
    /// The instance terminated, or is shown no more.
    Changed,
    /// The collector stops.
    Shutdown,
}

impl Outcome {
    /// Why the log is asked for again. `None`: it is not, or there was none.
    pub fn again(&self) -> Option<Ended> {
        match self {
            Self::Ended { .. } => Some(Ended::clean_end),
            Self::Broken(_) => Some(Ended::broken),
            Self::Refused(_) => Some(Ended::refused),
            Self::Busy(_) => Some(Ended::busy),
            Self::Silent => Some(Ended::silent),
            Self::NoFollow | Self::Yielded => Some(Ended::no_follow),
            Self::Renewed => Some(Ended::renewed),
            Self::Changed => Some(Ended::changed),
            Self::Polled { .. } | Self::NotYet | Self::PodGone | Self::Shutdown => None,
        }
    }
}
