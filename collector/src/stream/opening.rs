//! How long a container had run when its log was opened for the first time. Its status may be
//! reported late, or arrive late.
//!
//! Differences between times of the node's clock are compared with those of this process's steady
//! clock, so that neither has to be right. A step of the node's clock after a start can hide a late
//! report, or feign one: then a gap is suspected where none is.

use std::time::Duration;

use bus::Timestamp;
use system::clock::{Instant, since};

/// After this long, the first file of a log may have been rotated away. The time of a start is in
/// whole seconds, so that up to a second less is taken for it.
const INTACT_FOR: Duration = Duration::from_secs(3);

/// Lines that are read later tell nothing: the clocks of node and collector drift.
const TELLS_FOR: Duration = Duration::from_secs(30);

/// The first time that a log is opened.
#[derive(Clone, Copy, Debug)]
pub struct Opening {
    /// When the container started, in whole seconds of the node's clock.
    started: Timestamp,
    at: Instant,
    /// The time of the first line.
    pub first: Option<Timestamp>,
}

impl Opening {
    /// Creates the state of a log that is opened now.
    pub fn new(started: Timestamp, at: Instant) -> Self {
        Self {
            started,
            at,
            first: None,
        }
    }

    /// Returns whether a line of this time, which is read now, shows that the container had run for
    /// long. It is read after it is printed, so that the container had run for longer, if anything.
    pub fn was_late(&self, time: i64) -> bool {
        let age = i64::try_from(since(self.at).as_nanos()).unwrap_or(i64::MAX);
        let ran = time.saturating_sub(self.started.0).saturating_sub(age);
        !self.is_over() && u64::try_from(ran).is_ok_and(|ran| Duration::from_nanos(ran) > INTACT_FOR)
    }

    /// Returns whether lines that are read from now on tell nothing.
    pub fn is_over(&self) -> bool {
        since(self.at) > TELLS_FOR
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use system::clock::steady;

    const SECOND: i64 = 1_000_000_000;

    #[tokio::test(start_paused = true)]
    async fn a_line_shows_how_long_its_container_had_run_when_the_log_was_opened() {
        let opening = Opening::new(Timestamp(100 * SECOND), steady());
        assert!(!opening.was_late(103 * SECOND) && opening.was_late(104 * SECOND));
        tokio::time::advance(Duration::from_secs(10)).await;
        assert!(!opening.was_late(113 * SECOND) && opening.was_late(114 * SECOND));
        assert!(!opening.was_late(50 * SECOND), "the clock stepped back");
        assert!(!opening.was_late(i64::MIN), "no time");
        tokio::time::advance(TELLS_FOR).await;
        assert!(opening.is_over() && !opening.was_late(500 * SECOND));
    }
}
