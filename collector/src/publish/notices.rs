//! Publishes the collector's platform messages, in a stream of its own in each app.

use std::{sync::Arc, time::Duration};

use bus::{
    AppName, Batch, Bus, Epoch, StreamId, StreamMetadata, Timestamp,
    notice::{Notice, TRIBUTARY},
};
use system::collections::HashMap;
use tokio::sync::mpsc;

use crate::retry::Backoff;

/// Messages that can wait for the bus.
const WAITING_NOTICES: usize = 64;

/// Queues platform messages. Clones share the queue.
#[derive(Clone, Debug)]
pub struct Notices(mpsc::Sender<(AppName, Timestamp, Notice)>);

impl Notices {
    /// Creates the queue, and the task that publishes its messages.
    pub fn new(node: &str, bus: Arc<dyn Bus>) -> (Self, impl Future<Output = ()> + use<>) {
        let (notices, queued) = mpsc::channel(WAITING_NOTICES);
        (Self(notices), publish_all(queued, node.to_owned(), bus))
    }

    /// Adds a message to an app's log, unless the queue is full: then the bus is unavailable.
    pub fn send(&self, app: &AppName, notice: Notice) {
        let _ = self.0.try_send((app.clone(), Timestamp::now(), notice));
    }

    /// Creates a queue whose messages are dropped.
    #[cfg(test)]
    pub fn unread() -> Self {
        Self(mpsc::channel(1).0)
    }
}

async fn publish_all(mut queued: mpsc::Receiver<(AppName, Timestamp, Notice)>, node: String, bus: Arc<dyn Bus>) {
    let node_name = if node.is_empty() { "all" } else { &node };
    let Ok(stream) = StreamId::new(TRIBUTARY, "collector", node_name, Epoch::new()) else {
        return;
    };
    let mut seqs: HashMap<AppName, u64> = HashMap::default();
    while let Some((app, at, notice)) = queued.recv().await {
        let seq = seqs.entry(app.clone()).or_default();
        let batch = Batch {
            metadata: Arc::new(StreamMetadata::tributary(app, stream.clone(), &node)),
            seq: *seq,
            content: notice.into_content(at),
        };
        // The sequence number is used only once the bus has the line.
        if publish(&*bus, &batch).await {
            *seq += 1;
        }
    }
}

/// Publishes a batch with retries. Returns false if the bus rejects it permanently.
async fn publish(bus: &dyn Bus, batch: &Batch) -> bool {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
    loop {
        match bus.publish(batch.clone()).await {
            Ok(()) => return true,
            Err(error) if error.is_transient() => tokio::time::sleep(backoff.next_delay()).await,
            Err(error) => {
                tracing::error!(%error, app = %batch.metadata.app, "platform message rejected");
                return false;
            }
        }
    }
}
