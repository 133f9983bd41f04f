//! A durable subscription: deliveries with acknowledgement, and a stored offset.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
};

use futures::stream::{self, StreamExt};
use parking_lot::Mutex;
use system::task;
use tokio::sync::{Notify, watch};

use super::{log::Log, offset::Offset};
use crate::{Ack, AckOutcome, BusError, PublishTime, Reader, ReaderItem, batch::Delivery};

/// Maximum unacknowledged deliveries; then the reader waits for acks. Only keys are stored, so that
/// a receiver that confirms after 30 s does not block an app that prints a batch per millisecond.
const MAX_UNACKED: usize = 1 << 16;

/// A durable subscription, reserved for one reader.
pub(super) struct Subscription {
    log: Arc<Log>,
    shared: Arc<Shared>,
}

/// State shared with the outstanding acks.
struct Shared {
    progress: Mutex<Progress>,
    changed: Notify,
    offset: Offset,
}

struct Progress {
    /// The key to read next.
    next: u64,
    /// Keys of unacknowledged deliveries.
    unacked: BTreeSet<u64>,
    /// Keys to redeliver.
    nacked: VecDeque<u64>,
}

impl Progress {
    /// Returns the key up to which all batches are acknowledged.
    fn acked(&self) -> u64 {
        self.unacked.first().map_or(self.next, |unacked| *unacked) - 1
    }
}

impl Subscription {
    /// Creates a subscription of which all batches up to key `acked` are acknowledged.
    pub(super) fn new(log: Arc<Log>, offset: Offset, acked: u64) -> Self {
        let progress = Progress {
            next: acked + 1,
            unacked: BTreeSet::new(),
            nacked: VecDeque::new(),
        };
        Self {
            log,
            shared: Arc::new(Shared {
                progress: Mutex::new(progress),
                changed: Notify::new(),
                offset,
            }),
        }
    }
}

struct SubscriptionReader {
    subscription: Subscription,
    newest: watch::Receiver<u64>,
}

/// Reads a subscription from its offset on. The reader ends when the app is removed.
pub(super) fn read(subscription: Subscription) -> Reader {
    let newest = subscription.log.newest.subscribe();
    let since = PublishTime(subscription.shared.progress.lock().next);
    let reader = SubscriptionReader { subscription, newest };
    let items = stream::unfold(reader, |mut reader| async {
        let item = reader.next().await?;
        Some((item, reader))
    });
    // In order except for redeliveries, which the reader asked for.
    Reader::new(items.boxed(), since, true)
}

impl SubscriptionReader {
    async fn next(&mut self) -> Option<Result<ReaderItem, BusError>> {
        let log = Arc::clone(&self.subscription.log);
        let shared = Arc::clone(&self.subscription.shared);
        loop {
            if log.removed.is_cancelled() {
                return None;
            }
            if let Some(interrupted) = self.skip_evicted() {
                return Some(Ok(interrupted));
            }
            let newest = *self.newest.borrow_and_update();
            let changed = shared.changed.notified();
            if let Some(key) = self.due(newest) {
                match self.deliver(key, newest).await {
                    Ok(Some(item)) => return Some(Ok(item)),
                    Ok(None) => continue,
                    Err(error) => return Some(Err(error)),
                }
            }
            tokio::select! {
                biased;
                () = changed => {}
                grown = self.newest.changed() => grown.ok()?,
                () = log.removed.cancelled() => return None,
            }
        }
    }

    /// Skips batches that retention has evicted; returns the item that reports it.
    fn skip_evicted(&mut self) -> Option<ReaderItem> {
        let floor = self.subscription.log.floor();
        let mut progress = self.subscription.shared.progress.lock();
        if progress.next >= floor {
            return None;
        }
        let from = PublishTime(std::mem::replace(&mut progress.next, floor));
        Some(ReaderItem::Interrupted {
            from,
            to: PublishTime(floor),
        })
    }

    /// Returns the key to deliver: a nacked one, or the next one.
    fn due(&self, newest: u64) -> Option<u64> {
        let mut progress = self.subscription.shared.progress.lock();
        if let Some(key) = progress.nacked.pop_front() {
            return Some(key);
        }
        (progress.unacked.len() < MAX_UNACKED && progress.next <= newest).then_some(progress.next)
    }

    async fn deliver(&self, from: u64, newest: u64) -> Result<Option<ReaderItem>, BusError> {
        let log = &self.subscription.log;
        let read = || log.read(from, newest, 1);
        // Without a switch to another thread: it costs more than most reads, and `Reader::try_next`
        // would find only batches in memory.
        let found = if log.is_recent(from) {
            read()?
        } else {
            task::io(read).await?
        };
        let found = found.into_iter().next();
        let is_evicted = log.floor() > from;
        let mut progress = self.subscription.shared.progress.lock();
        let is_redelivery = from < progress.next;
        if is_evicted && !is_redelivery {
            // Retention overtook the read, which may have skipped batches: they are reported first.
            return Ok(None);
        }
        let Some((key, item)) = found.filter(|(key, _)| !is_redelivery || *key == from) else {
            let to = if is_redelivery { from } else { newest };
            progress.unacked.remove(&from);
            progress.next = progress.next.max(to + 1);
            return Ok(Some(ReaderItem::Interrupted {
                from: PublishTime(from),
                to: PublishTime(to + 1),
            }));
        };
        progress.unacked.insert(key);
        progress.next = progress.next.max(key + 1);
        drop(progress);
        Ok(Some(match item {
            ReaderItem::Delivery(delivery) => ReaderItem::Delivery(Delivery {
                ack: Some(self.ack(key)),
                ..delivery
            }),
            other => {
                // Unreadable data stays unreadable, so it is reported once and not redelivered.
                self.ack(key).ack();
                other
            }
        }))
    }

    fn ack(&self, key: u64) -> Ack {
        let shared = Arc::clone(&self.subscription.shared);
        Ack::new(move |outcome| {
            let mut progress = shared.progress.lock();
            if outcome == AckOutcome::Nacked {
                progress.nacked.push_back(key);
            } else {
                progress.unacked.remove(&key);
                if let Err(error) = shared.offset.store(progress.acked()) {
                    // Acknowledged batches may be redelivered after a restart, as at-least-once
                    // allows.
                    tracing::warn!(%error, "subscription offset write failed");
                }
            }
            drop(progress);
            shared.changed.notify_one();
        })
    }
}
