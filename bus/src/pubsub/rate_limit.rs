//! A rate limit on the system's clock, which a simulation can set.

use std::time::Duration;

use parking_lot::Mutex;
use system::{
    clock::{Instant, steady},
    random::random_range,
};

/// Jitter of waits, which spreads the calls of processes that started together.
const JITTER: Duration = Duration::from_millis(50);

/// Admits a number of calls per second, and a burst at once after a pause.
pub(super) struct RateLimit {
    interval: Duration,
    /// How far the calls may be ahead of the rate.
    lead: Duration,
    /// When the next call would be due at the rate.
    due: Mutex<Instant>,
}

impl RateLimit {
    pub(super) fn new(per_second: u32, burst: u32) -> Self {
        let interval = Duration::from_secs(1) / per_second;
        Self {
            interval,
            lead: interval * burst.saturating_sub(1),
            due: Mutex::new(steady()),
        }
    }

    /// Waits until the limit admits a call. A cancelled wait counts as a call.
    pub(super) async fn acquire(&self) {
        if let Some(admitted) = self.reserve(steady()) {
            tokio::time::sleep_until(admitted + JITTER.mul_f64(random_range(0.0..1.0))).await;
        }
    }

    /// Admits the next call; returns when, unless at once.
    fn reserve(&self, now: Instant) -> Option<Instant> {
        let mut due = self.due.lock();
        let this = (*due).max(now);
        *due = this + self.interval;
        let ahead = this - now;
        (ahead > self.lead).then(|| now + (ahead - self.lead))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_admitted_at_once_and_then_the_rate() {
        let limit = RateLimit::new(10, 3);
        let now = steady() + Duration::from_secs(1);
        for _ in 0..3 {
            assert_eq!(limit.reserve(now), None);
        }
        for call in 1..=5 {
            assert_eq!(limit.reserve(now), Some(now + Duration::from_millis(100) * call));
        }
        let later = now + Duration::from_secs(60);
        for _ in 0..3 {
            assert_eq!(limit.reserve(later), None);
        }
        assert!(limit.reserve(later).is_some());
    }
}
