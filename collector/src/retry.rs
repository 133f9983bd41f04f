//! How long to wait before the next attempt.

use std::time::Duration;

/// Waits that double up to a limit, each drawn from its upper half so that many waiting collectors do not knock together.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    most: Duration,
    next: Duration,
}

impl Backoff {
    /// Begins at `first` and grows to `most`.
    pub fn new(first: Duration, most: Duration) -> Self {
        Self {
            first,
            most,
            next: first,
        }
    }

    /// The next wait.
    pub fn next(&mut self) -> Duration {
        let wait = self.next;
        self.next = (wait * 2).min(self.most);
        wait.mul_f64(rand::random_range(0.5..=1.0))
    }

    /// Begins anew: an attempt succeeded.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_limit_and_begin_anew() {
        let (first, most) = (Duration::from_millis(50), Duration::from_secs(5));
        let mut backoff = Backoff::new(first, most);
        assert!(backoff.next() <= first);
        let last = (0..20).map(|_| backoff.next()).last().unwrap_or_default();
        assert!(last >= most / 2 && last <= most);
        backoff.reset();
        assert!(backoff.next() <= first);
    }
}
