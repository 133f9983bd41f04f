//! Learns after which time without data something on the way closes a connection.

use std::time::Duration;

/// Shorter silences say nothing: a receiver that restarts closes its connections as well.
const MIN_IDLE: Duration = Duration::from_secs(5);

/// The idle timeout of a drain's connections: of its receiver, or of a proxy in front of it.
#[derive(Debug, Default)]
pub(crate) struct IdleTimeout {
    /// After which silence the last connection was closed.
    last: Option<Duration>,
    learned: Option<Duration>,
}

impl IdleTimeout {
    /// Records that the other side closed a connection after this time without data. Two similar
    /// times are a timeout.
    pub(crate) fn record(&mut self, idle: Duration) {
        if idle < MIN_IDLE {
            return;
        }
        if let Some(last) = self.last.replace(idle)
            && last.abs_diff(idle) <= last.max(idle) / 5
        {
            self.learned = Some(last.min(idle));
        }
    }

    /// Returns after which time without data the drain closes the connection itself, which confirms
    /// what was sent: before the other side does.
    pub(crate) fn limit(&self) -> Option<Duration> {
        self.learned.map(|learned| learned * 4 / 5)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_similar_silences_before_a_close_are_a_timeout() {
        let mut timeout = IdleTimeout::default();
        for (seconds, limit) in [(20, None), (1, None), (60, None), (55, Some(44)), (3, Some(44))] {
            timeout.record(Duration::from_secs(seconds));
            assert_eq!(timeout.limit(), limit.map(Duration::from_secs), "{seconds}");
        }
    }
}
