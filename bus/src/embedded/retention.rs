//! What is kept: by age, and by bytes with a guaranteed share an app.

use std::io;

use super::store::Store;
use crate::PublishTime;

impl Store {
    /// Deletes what is too old, then, while all apps together hold too much, the oldest of the app that holds the most and more than its share.
    pub(super) fn enforce_retention(&self, now: PublishTime) -> io::Result<()> {
        let logs = self.logs();
        let too_old = now.earlier_by(self.limits.retention).0;
        for log in &logs {
            while log.oldest_ends_before(too_old) {
                log.evict_oldest()?;
            }
        }
        let share = self.limits.retention_bytes / (logs.len() as u64).max(1);
        let mut held: Vec<u64> = logs.iter().map(|log| log.bytes()).collect();
        while held.iter().sum::<u64>() > self.limits.retention_bytes {
            let loudest = (0..logs.len()).max_by_key(|i| held[*i]).filter(|i| held[*i] > share);
            let Some(loudest) = loudest else { break };
            let gone = logs[loudest].evict_oldest()?;
            tracing::debug!(app = %logs[loudest].app, bytes = gone, "evicted the oldest batches");
            held[loudest] -= gone.min(held[loudest]);
        }
        Ok(())
    }
}
