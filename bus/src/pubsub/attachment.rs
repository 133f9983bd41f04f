//! Looks whether a subscription is still attached to its topic: one that is not gets nothing for ever, without an error (rule 22).

use std::time::Duration;

use super::{admin::Admin, failure::Failure};

/// How soon it is looked again while the service does not answer.
const AWAY_WAIT: Duration = Duration::from_secs(2);

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// The topic or the subscription is gone: it is to be made again.
    Lost,
    /// The service answers again after it did not: a stream may be waiting out a long backoff of the library's.
    Back,
}

/// Whether the service answered when it was last asked.
#[derive(Debug, Default)]
pub(super) struct Watch {
    away: bool,
}

impl Watch {
    /// Returns when there is something to be done, having looked once in `interval`, or more often while the service is away.
    ///
    /// *Cancel safety*: nothing is lost; the interval begins anew.
    pub(super) async fn next(&mut self, admin: &Admin, subscription: &str, interval: Duration) -> Found {
        loop {
            // Many readers that began together shall not look together.
            let wait = if self.away { AWAY_WAIT.min(interval) } else { interval };
            tokio::time::sleep(wait.mul_f64(rand::random_range(0.8..=1.0))).await;
            match admin.is_attached(subscription).await {
                Ok(true) if self.away => {
                    self.away = false;
                    return Found::Back;
                }
                Ok(true) => {}
                Ok(false) => {
                    self.away = false;
                    return Found::Lost;
                }
                Err(failure) => {
                    tracing::debug!(subscription, ?failure, "cannot look after a subscription for now");
                    self.away = matches!(failure, Failure::Away(_));
                }
            }
        }
    }
}
