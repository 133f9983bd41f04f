//! How long reassembly waits for missing lines.

use std::time::Duration;

use crate::{bus::Reader, time::PublishTime};

/// Tolerance for differing clocks: a stream whose epoch is this much later than the reader's start
/// began while the reader was reading, so its first sequence number is 0.
pub const CLOCK_TOLERANCE: Duration = Duration::from_secs(10);

/// A batch older than this on arrival belongs to a backlog and is not live.
pub const LIVE_AGE: Duration = Duration::from_secs(10);

/// Reorder window of tails: how long a live batch waits for earlier ones. A gap delays a tail by at
/// most this long.
pub const REORDER_WINDOW: Duration = Duration::from_secs(1);

/// How long a batch waits for earlier ones before the gap in front of it is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GapTimeouts {
    /// No wait: deliveries never overtake each other ([`Reader::in_order`]). It joins a stream
    /// at the first batch that arrives.
    InOrder,
    /// A tail waits for `reorder_window` after the arrival, and up to [`LIVE_AGE`] while arriving
    /// batches are delayed. It reports no gap before it has caught up.
    Tail {
        /// The wait for live batches of a bus without delay.
        reorder_window: Duration,
    },
    /// A drain waits for twice the ack deadline plus [`LIVE_AGE`], so that deliveries to a crashed
    /// reader can be redelivered, and while its backlog is older than that.
    Drain {
        /// Ack deadline of the subscription.
        ack_deadline: Duration,
        /// The subscription was created for this reader: no earlier reader holds deliveries, so
        /// streams that began before it are joined after [`REORDER_WINDOW`].
        is_new: bool,
    },
}

impl GapTimeouts {
    /// Returns the timeouts for a tail of this reader.
    pub fn for_tail(reader: &Reader) -> Self {
        if reader.in_order() {
            Self::InOrder
        } else {
            Self::Tail {
                reorder_window: REORDER_WINDOW,
            }
        }
    }

    /// Returns the timeouts for a drain that reads this durable subscription. `is_new`: nothing has
    /// read it before.
    pub fn for_drain(reader: &Reader, is_new: bool) -> Self {
        if reader.in_order() {
            Self::InOrder
        } else {
            Self::Drain {
                ack_deadline: reader.ack_deadline(),
                is_new,
            }
        }
    }
}

/// A reading of both clocks that reassembly uses.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Time since a fixed point; monotonic.
    pub elapsed: Duration,
    /// The time of the bus ([`Reader::now`]), never that of a local clock.
    pub bus: PublishTime,
}
