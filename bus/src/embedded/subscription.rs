//! A durable subscription: deliveries that are settled, a place that is kept.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
};

use futures::stream::{self, StreamExt};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::{log::Log, offset::Place};
use crate::{Ack, BusError, Item, Outcome, PublishTime, Reader, batch::Delivery};

/// Deliveries that may be open at once; then the reader waits for acks. A number each: a receiver that confirms after half a minute holds up no app that prints a batch a
/// millisecond.
const MAX_OPEN: usize = 1 << 16;

/// One reader's hold on a durable subscription.
pub(super) struct Subscription {
    log: Arc<Log>,
    shared: Arc<Shared>,
}

/// What is dealt with, shared with the acks that are out.
struct Shared {
    settled: Mutex<Settled>,
    changed: Notify,
    place: Place,
}

struct Settled {
    /// The key to read next.
    next: u64,
    /// Delivered and not accepted.
    open: BTreeSet<u64>,
    /// Given back, to be delivered again.
    returned: VecDeque<u64>,
}

impl Settled {
    /// All up to this key is dealt with.
    fn floor(&self) -> u64 {
        self.open.first().map_or(self.next, |open| *open) - 1
    }
}

impl Subscription {
    pub(super) fn new(log: Arc<Log>, place: Place, floor: u64) -> Self {
        let settled = Settled {
            next: floor + 1,
            open: BTreeSet::new(),
            returned: VecDeque::new(),
        };
        Self {
            log,
            shared: Arc::new(Shared {
                settled: Mutex::new(settled),
                changed: Notify::new(),
                place,
            }),
        }
    }
}

struct Reading {
    subscription: Subscription,
    newest: watch::Receiver<u64>,
}

/// Reads a subscription from its place on. Ends when the app is removed.
pub(super) fn read(subscription: Subscription) -> Reader {
    let newest = subscription.log.newest.subscribe();
    let since = PublishTime(subscription.shared.settled.lock().next);
    let items = stream::unfold(Reading { subscription, newest }, |mut reading| async {
        let item = reading.next().await?;
        Some((item, reading))
    });
    // Save what its reader gave back, which comes again out of its place.
    Reader::new(items.boxed(), since, true)
}

impl Reading {
    async fn next(&mut self) -> Option<Result<Item, BusError>> {
        let log = Arc::clone(&self.subscription.log);
        let shared = Arc::clone(&self.subscription.shared);
        loop {
            if log.removed.is_cancelled() {
                return None;
            }
            if let Some(passed) = self.passed_by_retention() {
                return Some(Ok(passed));
            }
            let newest = *self.newest.borrow_and_update();
            let changed = shared.changed.notified();
            if let Some(key) = self.due(newest) {
                match self.deliver(key, newest) {
                    Ok(Some(item)) => return Some(Ok(item)),
                    Ok(None) => continue,
                    Err(error) => return Some(Err(error)),
                }
            }
            tokio::select! {
                () = changed => {}
                grown = self.newest.changed() => grown.ok()?,
                () = log.removed.cancelled() => return None,
            }
        }
    }

    fn passed_by_retention(&mut self) -> Option<Item> {
        let floor = self.subscription.log.floor();
        let mut settled = self.subscription.shared.settled.lock();
        if settled.next >= floor {
            return None;
        }
        let from = PublishTime(std::mem::replace(&mut settled.next, floor));
        Some(Item::Break {
            from,
            to: PublishTime(floor),
        })
    }

    /// The key to look from: one given back, or the next.
    fn due(&self, newest: u64) -> Option<u64> {
        let mut settled = self.subscription.shared.settled.lock();
        if let Some(key) = settled.returned.pop_front() {
            return Some(key);
        }
        (settled.open.len() < MAX_OPEN && settled.next <= newest).then_some(settled.next)
    }

    fn deliver(&self, from: u64, newest: u64) -> Result<Option<Item>, BusError> {
        let log = &self.subscription.log;
        let found = log.read(from, newest, 1)?.into_iter().next();
        let mut settled = self.subscription.shared.settled.lock();
        let again = from < settled.next;
        let Some((key, item)) = found.filter(|(key, _)| !again || *key == from) else {
            // Retention took it: the floor tells where to go on.
            settled.open.remove(&from);
            if !again {
                settled.next = newest + 1;
            }
            return Ok(None);
        };
        settled.open.insert(key);
        settled.next = settled.next.max(key + 1);
        drop(settled);
        Ok(Some(match item {
            Item::Delivery(delivery) => Item::Delivery(Delivery {
                ack: Some(self.ack(key)),
                ..delivery
            }),
            other => {
                // Nobody can deal with it: it is told once and never comes again.
                self.ack(key).accept();
                other
            }
        }))
    }

    fn ack(&self, key: u64) -> Ack {
        let shared = Arc::clone(&self.subscription.shared);
        Ack::new(move |outcome| {
            let mut settled = shared.settled.lock();
            if outcome == Outcome::GivenBack {
                settled.returned.push_back(key);
            } else {
                settled.open.remove(&key);
                if let Err(error) = shared.place.keep(settled.floor()) {
                    // What is accepted may come again after a restart: no more than at-least-once allows.
                    tracing::warn!(%error, "subscription place not kept");
                }
            }
            drop(settled);
            shared.changed.notify_one();
        })
    }
}
