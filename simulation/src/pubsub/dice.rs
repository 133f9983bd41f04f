//! Random decisions.

use std::time::Duration;

use rand::{RngExt, rngs::StdRng};

use super::Faults;

/// Draws what happens from the faults.
pub(super) struct Dice {
    pub(super) rng: StdRng,
    pub(super) faults: Faults,
}

impl Dice {
    /// Returns true with this probability.
    pub(super) fn chance(&mut self, probability: f64) -> bool {
        probability > 0.0 && self.rng.random_bool(probability.min(1.0))
    }

    /// Returns a duration from zero to `max`.
    pub(super) fn up_to(&mut self, max: Duration) -> Duration {
        if max.is_zero() {
            return max;
        }
        self.rng.random_range(Duration::ZERO..=max)
    }

    /// Returns the latency of one way.
    pub(super) fn latency(&mut self) -> Duration {
        let max = self.faults.latency / 2;
        max / 4 + self.up_to(max - max / 4)
    }

    /// Returns the delay of a delivery.
    pub(super) fn delivery_delay(&mut self) -> Duration {
        self.latency() + self.up_to(self.faults.disorder)
    }

    /// Returns a number of messages that a stream receives at once.
    pub(super) fn response_size(&mut self) -> usize {
        self.rng.random_range(1..=50)
    }
}
