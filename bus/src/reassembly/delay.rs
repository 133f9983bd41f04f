//! How long the bus takes lately, and what disorder that may hide.

use std::time::Duration;

use super::LIVE;

/// A smoothed age of what arrives and its mean deviation, as TCP measures a round trip (RFC 6298): a bus that is behind, over several streams that are not
/// equally so, brings a batch that much later than the one that follows it.
#[derive(Debug, Default)]
pub(super) struct Delay {
    mean: Duration,
    deviation: Duration,
}

impl Delay {
    /// Learns of an arrival, and how old it was by then. More than [`LIVE`] counts as that.
    pub(super) fn saw(&mut self, age: Duration) {
        let age = age.min(LIVE);
        self.deviation = (self.deviation * 3 + self.mean.abs_diff(age)) / 4;
        self.mean = (self.mean * 7 + age) / 8;
    }

    /// What a batch may still be late by. At most [`LIVE`].
    pub(super) fn bound(&self) -> Duration {
        (self.mean + self.deviation * 4).min(LIVE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(ages: impl IntoIterator<Item = u64>) -> Duration {
        let mut delay = Delay::default();
        ages.into_iter().for_each(|age| delay.saw(Duration::from_millis(age)));
        delay.bound()
    }

    #[test]
    fn a_bus_in_time_adds_nothing_and_one_that_is_behind_what_it_is_behind() {
        assert_eq!(after([]), Duration::ZERO);
        assert!(after([40, 80].repeat(50)) < Duration::from_millis(200));
        let steady = after([3000; 100]);
        assert!(
            Duration::from_millis(2900) < steady && steady < Duration::from_millis(3200),
            "{steady:?}"
        );
        let uneven = after([200, 4000].repeat(50));
        assert!(uneven > Duration::from_secs(6), "{uneven:?}");
        assert_eq!(after([3_600_000; 100]), LIVE);
    }

    #[test]
    fn a_straggler_is_forgotten() {
        let mut ages = vec![9000];
        ages.extend([50; 40]);
        assert!(after(ages) < Duration::from_millis(200));
    }
}
