//! Logs that the API does not let the collector read: told once a minute, however many containers they are of.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::instance::Instance;

/// An operator wants to know it, and not for each container each time.
const AGAIN_AFTER: Duration = Duration::from_secs(60);

/// When one was last told.
#[derive(Clone, Default)]
pub struct Refusals(Arc<Mutex<Option<Instant>>>);

impl Refusals {
    /// A log was refused, in the API's words.
    pub fn saw(&self, instance: &Instance, reason: &str) {
        let now = Instant::now();
        let mut told = self.0.lock();
        if told.is_none_or(|told| now.duration_since(told) >= AGAIN_AFTER) {
            *told = Some(now);
            tracing::error!(
                app = %instance.app,
                process = instance.process,
                %reason,
                "the API does not let the collector read a log: its account needs `get` on pods/log, in all namespaces"
            );
        }
    }
}
