//! Logs that the API does not let the collector read: told once a minute, however many containers they are of.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::instance::Instance;

/// An operator wants to know it, and not for each container each time.
const WARN_INTERVAL: Duration = Duration::from_secs(60);

/// When one was last told.
#[derive(Clone, Default)]
pub struct RefusalLog(Arc<Mutex<Option<Instant>>>);

impl RefusalLog {
    /// A log was refused, in the API's words.
    pub fn warn(&self, instance: &Instance, reason: &str) {
        let now = Instant::now();
        let mut last_warning = self.0.lock();
        if last_warning.is_none_or(|last_warning| now.duration_since(last_warning) >= WARN_INTERVAL) {
            *last_warning = Some(now);
            tracing::error!(
                app = %instance.app,
                process = instance.process,
                %reason,
                "the API does not let the collector read a log: its account needs `get` on pods/log, in all namespaces"
            );
        }
    }
}
