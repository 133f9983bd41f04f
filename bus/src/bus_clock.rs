//! The time of the bus, as far as a process knows it.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

use system::clock::{self, Instant};

use crate::time::PublishTime;

/// The time of the bus: the largest publish time seen, plus the time that has passed since.
///
/// It never exceeds the time of the bus itself by more than the clocks differ in speed, and is
/// behind it by at most the delay of the fastest delivery. The wall clock of the process has no
/// influence, so replicas with different clocks agree on the age of a batch. It never decreases.
#[derive(Debug)]
pub struct BusClock {
    started: Instant,
    /// Microseconds by which the time of the bus is ahead of the time since `started`.
    ahead: AtomicI64,
}

/// No publish time has been seen.
const UNKNOWN: i64 = i64::MIN;

impl Default for BusClock {
    fn default() -> Self {
        Self::new()
    }
}

impl BusClock {
    /// Creates a clock whose time is unknown.
    pub fn new() -> Self {
        Self {
            started: clock::steady(),
            ahead: AtomicI64::new(UNKNOWN),
        }
    }

    /// Creates a clock at this time; unknown if it is 0.
    pub fn at(time: PublishTime) -> Self {
        let new = Self::new();
        new.record(time);
        new
    }

    /// Records a publish time of the bus. 0 is ignored.
    pub fn record(&self, published: PublishTime) {
        if published > PublishTime(0) {
            let published = i64::try_from(published.0).unwrap_or(i64::MAX);
            self.ahead
                .fetch_max(published.saturating_sub(self.elapsed()), Ordering::Relaxed);
        }
    }

    /// Returns the time of the bus. `None` before the first publish time.
    pub fn now(&self) -> Option<PublishTime> {
        let ahead = self.ahead.load(Ordering::Relaxed);
        let now = ahead.saturating_add(self.elapsed());
        (ahead != UNKNOWN).then(|| PublishTime(u64::try_from(now).unwrap_or_default()))
    }

    /// Returns the time of the bus, or 0 before the first publish time: no batch then has an age.
    pub fn now_or_zero(&self) -> PublishTime {
        self.now().unwrap_or_default()
    }

    fn elapsed(&self) -> i64 {
        micros(clock::since(self.started))
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_the_bus_follows_the_largest_publish_time() {
        let clock = BusClock::new();
        assert_eq!((clock.now(), clock.now_or_zero()), (None, PublishTime(0)));
        let time = PublishTime(1_800_000_000_000_000);
        clock.record(time);
        clock.record(time.earlier_by(Duration::from_secs(60)));
        let now = clock.now().unwrap();
        assert!(
            time <= now && now.since(time) < Duration::from_secs(30),
            "an older batch changes nothing: {now:?}"
        );
        let later = time.later_by(Duration::from_secs(3600));
        clock.record(later);
        assert!(clock.now().unwrap() >= later);
    }
}
