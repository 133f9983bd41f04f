//! Measurement of the bus's current delay.

use std::time::Duration;

use super::timeouts::LIVE_AGE;

/// A smoothed age of arriving batches and its mean deviation, as TCP measures a round trip
/// (RFC 6298). If a delayed bus delivers several streams with different delays, a batch can arrive
/// this much later than its successor.
#[derive(Debug, Default)]
pub(super) struct Delay {
    mean: Duration,
    deviation: Duration,
}

impl Delay {
    /// Records the age of an arriving batch, at most [`LIVE_AGE`].
    pub(super) fn record(&mut self, age: Duration) {
        let age = age.min(LIVE_AGE);
        self.deviation = (self.deviation * 3 + self.mean.abs_diff(age)) / 4;
        self.mean = (self.mean * 7 + age) / 8;
    }

    /// Returns the delay to expect, at most [`LIVE_AGE`].
    pub(super) fn bound(&self) -> Duration {
        (self.mean + self.deviation * 4).min(LIVE_AGE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(ages: impl IntoIterator<Item = u64>) -> Duration {
        let mut delay = Delay::default();
        ages.into_iter()
            .for_each(|age| delay.record(Duration::from_millis(age)));
        delay.bound()
    }

    #[test]
    fn the_bound_follows_the_delay_of_the_bus() {
        assert_eq!(after([]), Duration::ZERO);
        assert!(after([40, 80].repeat(50)) < Duration::from_millis(200));
        let steady = after([3000; 100]);
        assert!(
            Duration::from_millis(2900) < steady && steady < Duration::from_millis(3200),
            "{steady:?}"
        );
        let uneven = after([200, 4000].repeat(50));
        assert!(uneven > Duration::from_secs(6), "{uneven:?}");
        assert_eq!(after([3_600_000; 100]), LIVE_AGE);
    }

    #[test]
    fn a_single_delayed_batch_loses_its_influence() {
        let mut ages = vec![9000];
        ages.extend([50; 40]);
        assert!(after(ages) < Duration::from_millis(200));
    }
}
