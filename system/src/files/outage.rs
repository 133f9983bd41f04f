//! A time in which files cannot be written.

use std::time::Duration;

use crate::clock::{Instant, since, steady};

/// How often a failure that lasts is logged.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// Why writes fail now, if they do, and when that was last logged.
#[derive(Debug, Default)]
pub struct Outage {
    reason: Option<String>,
    failures: u64,
    is_logged: bool,
    last_logged: Option<Instant>,
}

/// An outage that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndedOutage {
    /// The number of failures.
    pub failures: u64,
    /// Whether one of them was to be logged.
    pub was_logged: bool,
}

impl Outage {
    /// Records a failure. Returns whether to log it: at most once a minute.
    #[must_use]
    pub fn record_failure(&mut self, reason: String) -> bool {
        self.reason = Some(reason);
        self.failures += 1;
        let is_due = self.last_logged.is_none_or(|at| since(at) >= LOG_EVERY);
        if is_due {
            (self.last_logged, self.is_logged) = (Some(steady()), true);
        }
        is_due
    }

    /// Records a success. Returns the outage that it ends, if there was one.
    pub fn record_success(&mut self) -> Option<EndedOutage> {
        self.reason.take()?;
        Some(EndedOutage {
            failures: std::mem::take(&mut self.failures),
            was_logged: std::mem::take(&mut self.is_logged),
        })
    }

    /// Returns why the last write failed; `None` if it succeeded.
    pub fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    /// Returns the number of failures since the last success.
    pub fn failures(&self) -> u64 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_logged_once_a_minute() {
        let mut outage = Outage::default();
        assert_eq!(outage.record_success(), None);
        assert!(outage.record_failure("full".to_owned()));
        assert!(!outage.record_failure("slow".to_owned()));
        assert_eq!((outage.reason(), outage.failures()), (Some("slow"), 2));
        let ended = outage.record_success();
        assert_eq!(
            ended,
            Some(EndedOutage {
                failures: 2,
                was_logged: true
            })
        );
        assert!(!outage.record_failure("full".to_owned()), "within the same minute");
        let ended = outage.record_success();
        assert_eq!(ended.map(|ended| ended.was_logged), Some(false));
    }
}
