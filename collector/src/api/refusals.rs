//! Rate-limits the log event for denied access: once a minute, whatever the number of containers.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use system::clock::{Instant, steady};

use crate::instance::Instance;

/// Minimum time between two events.
const WARN_INTERVAL: Duration = Duration::from_secs(60);

/// Time of the last event. Clones share it.
#[derive(Clone, Default)]
pub struct RefusalLog(Arc<Mutex<Option<Instant>>>);

impl RefusalLog {
    /// Logs that the API denied access, with the API's message.
    pub fn warn(&self, instance: &Instance, reason: &str) {
        let now = steady();
        let mut last_warning = self.0.lock();
        if last_warning.is_none_or(|last_warning| now.duration_since(last_warning) >= WARN_INTERVAL) {
            *last_warning = Some(now);
            tracing::error!(
                app = %instance.app,
                process = instance.process,
                %reason,
                "log access denied, the collector's account needs `get` on pods/log in all namespaces"
            );
        }
    }
}
