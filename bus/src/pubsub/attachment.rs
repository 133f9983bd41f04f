//! Monitors whether a subscription is still attached to its topic: a detached one receives nothing,
//! without an error (delivery rule 22).

use std::time::Duration;

use super::{admin_client::Admin, failure::Failure};

/// Check interval while the service is unavailable.
const UNAVAILABLE_INTERVAL: Duration = Duration::from_secs(2);

/// A change that requires action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AttachmentChange {
    /// The topic or the subscription was deleted: recreate the subscription.
    Lost,
    /// The service is available again. Restart the stream: the library may be in a long backoff.
    Recovered,
}

/// Monitors one subscription.
#[derive(Debug, Default)]
pub(super) struct AttachmentMonitor {
    unavailable: bool,
}

impl AttachmentMonitor {
    /// Returns at the next change, checking every `interval`, or more often while the service is
    /// unavailable.
    ///
    /// *Cancel safety*: no change is lost; the interval restarts.
    pub(super) async fn next(&mut self, admin: &Admin, subscription: &str, interval: Duration) -> AttachmentChange {
        loop {
            // Jitter spreads the calls of readers that started together.
            let wait = if self.unavailable {
                UNAVAILABLE_INTERVAL.min(interval)
            } else {
                interval
            };
            tokio::time::sleep(wait.mul_f64(system::random::random_range(0.8..=1.0))).await;
            match admin.is_attached(subscription).await {
                Ok(true) if self.unavailable => {
                    self.unavailable = false;
                    return AttachmentChange::Recovered;
                }
                Ok(true) => {}
                Ok(false) => {
                    self.unavailable = false;
                    return AttachmentChange::Lost;
                }
                Err(failure) => {
                    tracing::debug!(subscription, ?failure, "subscription check failed");
                    self.unavailable = matches!(failure, Failure::Unavailable(_));
                }
            }
        }
    }
}
