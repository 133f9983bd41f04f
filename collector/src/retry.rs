//! Delays between attempts.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use system::random::random;

/// Exponential backoff with jitter that never gives up.
#[derive(Debug)]
pub struct Backoff {
    settings: ExponentialBuilder,
    delays: ExponentialBackoff,
    max: Duration,
}

impl Backoff {
    /// Doubles the delay from `first` up to `max`; each delay is drawn from the upper half of its
    /// range.
    pub fn new(first: Duration, max: Duration) -> Self {
        // backon adds up to the delay itself as jitter: with half the bounds that is the upper half.
        let settings = ExponentialBuilder::new()
            .with_min_delay(first / 2)
            .with_max_delay(max / 2)
            .with_jitter()
            .without_max_times();
        Self {
            settings,
            delays: start(settings),
            max,
        }
    }

    /// Returns the next delay.
    pub fn next_delay(&mut self) -> Duration {
        self.delays.next().unwrap_or(self.max)
    }

    /// Starts over with the first delay, after an attempt that succeeded.
    pub fn reset(&mut self) {
        self.delays = start(self.settings);
    }
}

/// Starts with the first delay. Without a seed, backon draws one from outside of `system`.
fn start(settings: ExponentialBuilder) -> ExponentialBackoff {
    settings.with_jitter_seed(random()).build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_the_maximum_and_start_over_after_a_reset() {
        let (first, max) = (Duration::from_millis(50), Duration::from_secs(5));
        let mut backoff = Backoff::new(first, max);
        assert!(backoff.next_delay() <= first);
        let last = (0..20).map(|_| backoff.next_delay()).last().unwrap_or_default();
        assert!(last >= max / 2 && last <= max);
        backoff.reset();
        assert!(backoff.next_delay() <= first);
    }
}
