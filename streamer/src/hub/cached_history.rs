//! History that was read from the bus, and the copy of it that a hub keeps for later tails.

use std::sync::Arc;

use bus::PublishTime;
use tokio::time::Instant;

use crate::{
    frame::{Frame, memory::MemoryBudget},
    hub::{delivered::Delivered, ring::RingPosition},
    line::NoticeLine,
};

/// Limit of one history read, and the budget that counts its frames.
pub(crate) struct HistoryBudget {
    /// Bytes of batches and per-line bookkeeping.
    pub(crate) bytes: usize,
    /// Counts the memory of all history.
    pub(crate) memory: MemoryBudget,
}

/// The result of a history read.
#[derive(Default)]
pub(crate) struct HistorySegment {
    /// Notices that precede the lines.
    pub(crate) notices: Vec<NoticeLine>,
    /// The lines, oldest first.
    pub(crate) frames: Vec<Arc<Frame>>,
    /// Everything that was read, including lines that the filter rejected: live lines in it are
    /// repeats.
    pub(crate) delivered: Delivered,
    /// The segment holds every matching line published since then; 0 for the start of the log.
    /// `None` if lines were dropped.
    pub(crate) complete_from: Option<PublishTime>,
    /// Publish time back to which the bus was read.
    pub(crate) reached: PublishTime,
    /// Lines were dropped to stay within the memory limit.
    pub(crate) truncated: bool,
}

/// A history segment that a hub keeps for later tails.
pub(crate) struct CachedHistory {
    pub(crate) segment: HistorySegment,
    /// End of the ring when the read began.
    pub(crate) position: RingPosition,
    pub(crate) created: Instant,
}

impl HistorySegment {
    /// Returns the bytes of all frames.
    pub(crate) fn bytes(&self) -> usize {
        self.frames.iter().map(|frame| frame.charge.bytes()).sum()
    }
}
