//! The clocks of API server and node, and timestamps in API objects.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use jiff::tz::{Offset, TimeZone};
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;

/// Formats a time like `metav1.Time`: RFC 3339 in UTC, whole seconds.
pub(crate) fn rfc3339_seconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Returns the time of the API server.
pub(crate) fn now() -> Timestamp {
    timestamp(wall_nanos())
}

/// Converts nanoseconds since the Unix epoch to a timestamp.
pub(crate) fn timestamp(nanos: u64) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(nanos)).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// The wall clock of the node, with the faults of it. Clones are the same clock.
#[derive(Clone, Default)]
pub(crate) struct NodeClock(Arc<ClockState>);

#[derive(Default)]
struct ClockState {
    /// Difference to the API server's clock in nanoseconds.
    step: AtomicI64,
    /// The time at which the clock stands still; 0: it does not.
    frozen: AtomicU64,
    /// Maximum time in nanoseconds between the timestamp of a line and its write; 0: lines are
    /// stamped when they are written.
    write_delay: AtomicU64,
    /// `None`: the time zone of the operating system.
    utc_offset: Mutex<Option<Offset>>,
}

impl NodeClock {
    /// Creates a clock in a time zone; `None` is that of the operating system.
    pub(crate) fn new(utc_offset: Option<SignedDuration>) -> Self {
        let clock = Self::default();
        if let Some(offset) = utc_offset {
            clock.set_utc_offset(offset);
        }
        clock
    }

    /// Returns the time in nanoseconds since the Unix epoch.
    pub(crate) fn nanos(&self) -> u64 {
        let now = match self.0.frozen.load(Ordering::Relaxed) {
            0 => wall_nanos(),
            frozen => frozen,
        };
        now.saturating_add_signed(self.0.step.load(Ordering::Relaxed))
    }

    /// Returns the time.
    pub(crate) fn now(&self) -> Timestamp {
        timestamp(self.nanos())
    }

    /// Steps the clock forward or back.
    pub(crate) fn step(&self, by: SignedDuration) {
        let nanos = i64::try_from(by.as_nanos()).unwrap_or(0);
        self.0.step.fetch_add(nanos, Ordering::Relaxed);
    }

    /// Makes the clock stand still, or continue at the time it would have had.
    pub(crate) fn freeze(&self, frozen: bool) {
        let at = if frozen { wall_nanos() } else { 0 };
        self.0.frozen.store(at, Ordering::Relaxed);
    }

    /// Sets the maximum time between the timestamp of a line and its write.
    pub(crate) fn set_write_delay(&self, delay: Duration) {
        let nanos = u64::try_from(delay.as_nanos()).unwrap_or(0);
        self.0.write_delay.store(nanos, Ordering::Relaxed);
    }

    /// Returns the maximum time in nanoseconds between the timestamp of a line and its write.
    pub(crate) fn write_delay(&self) -> u64 {
        self.0.write_delay.load(Ordering::Relaxed)
    }

    /// Sets the time zone.
    pub(crate) fn set_utc_offset(&self, offset: SignedDuration) {
        let seconds = i32::try_from(offset.as_secs()).unwrap_or(0);
        *self.0.utc_offset.lock() = Offset::from_seconds(seconds).ok();
    }

    /// Returns the time zone.
    pub(crate) fn time_zone(&self) -> TimeZone {
        let offset = *self.0.utc_offset.lock();
        offset.map_or_else(TimeZone::system, TimeZone::fixed)
    }
}

fn wall_nanos() -> u64 {
    u64::try_from(system::clock::wall().as_nanos()).unwrap_or(u64::MAX)
}
