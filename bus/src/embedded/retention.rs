//! Retention: by age, and by bytes with a guaranteed share per app.

use std::io;

use super::store::Store;
use crate::PublishTime;

impl Store {
    /// Deletes segments that are too old. Then, while all apps together exceed the byte limit,
    /// deletes the oldest segment of the largest app that exceeds its share.
    pub(super) async fn enforce_retention(&self, now: PublishTime) -> io::Result<()> {
        let logs = self.logs();
        let oldest_key = now.earlier_by(self.settings.retention).0;
        for log in &logs {
            while log.oldest_ends_before(oldest_key) {
                log.evict_oldest().await?;
            }
        }
        let share = self.settings.retention_bytes / (logs.len() as u64).max(1);
        let mut stored: Vec<u64> = logs.iter().map(|log| log.bytes()).collect();
        while stored.iter().sum::<u64>() > self.settings.retention_bytes {
            let largest = (0..logs.len())
                .max_by_key(|i| stored[*i])
                .filter(|i| stored[*i] > share);
            let Some(largest) = largest else { break };
            let deleted = logs[largest].evict_oldest().await?;
            tracing::debug!(app = %logs[largest].app, bytes = deleted, "oldest segment evicted");
            stored[largest] -= deleted.min(stored[largest]);
        }
        Ok(())
    }
}
