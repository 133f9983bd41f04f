//! The unacknowledged messages of a subscription.

mod leases;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use bus::{PublishTime, pubsub_service::RetryDelays};
use system::clock::Instant;
use tokio::sync::{Notify, futures::OwnedNotified};

pub(super) use self::leases::{Delivered, StreamState};
use super::{dice::Dice, state::Stored};

#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    pub(super) ack_deadline: Duration,
    pub(super) retention: Duration,
    pub(super) expiration: Option<Duration>,
    pub(super) retry_delays: Option<RetryDelays>,
}

pub(super) struct Subscription {
    /// Differs from that of a deleted subscription of the same name.
    pub(super) number: u64,
    /// `None`: its topic was deleted.
    pub(super) topic: Option<String>,
    /// Until then it may seem to be missing.
    pub(super) missing_until: Instant,
    settings: Settings,
    messages: BTreeMap<u64, Unacked>,
    /// The messages by the time at which they are due or their lease ends.
    schedule: BTreeSet<(Instant, u64)>,
    streams: BTreeMap<u64, StreamState>,
    /// The latest acknowledgements, which are lost if the process is killed.
    unflushed: VecDeque<(Instant, Unacked)>,
    last_used: Instant,
    changed: Arc<Notify>,
}

/// An unacknowledged message.
struct Unacked {
    message: Arc<Stored>,
    deliveries: u32,
    /// When it is due, or when its lease ends.
    at: Instant,
    /// The stream that it is leased to.
    stream: Option<u64>,
    /// When a seek beyond it becomes effective.
    ends: Option<Instant>,
}

impl Subscription {
    pub(super) fn new(number: u64, topic: &str, settings: Settings, missing_until: Instant, now: Instant) -> Self {
        Self {
            number,
            topic: Some(topic.to_owned()),
            missing_until,
            settings,
            messages: BTreeMap::new(),
            schedule: BTreeSet::new(),
            streams: BTreeMap::new(),
            unflushed: VecDeque::new(),
            last_used: now,
            changed: Arc::default(),
        }
    }

    /// Returns the number of unacknowledged messages.
    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }

    /// Wakes the streams.
    pub(super) fn wake(&self) {
        self.changed.notify_waiters();
    }

    /// Returns a future that waits for the next change.
    pub(super) fn changed(&self) -> OwnedNotified {
        Arc::clone(&self.changed).notified_owned()
    }

    /// Returns whether it has not been used for its expiration.
    pub(super) fn is_expired(&mut self, now: Instant) -> bool {
        if !self.streams.is_empty() {
            self.last_used = now;
        }
        let expiration = self.settings.expiration;
        expiration.is_some_and(|expiration| now - self.last_used > expiration)
    }

    /// Adds a message that is due at this time.
    pub(super) fn add(&mut self, message: Arc<Stored>, due: Instant) {
        let id = message.id;
        let added = Unacked {
            message,
            deliveries: 0,
            at: due,
            stream: None,
            ends: None,
        };
        self.messages.insert(id, added);
        self.schedule.insert((due, id));
        self.wake();
    }

    /// Removes messages that are older than the retention.
    pub(super) fn prune(&mut self, now: PublishTime) {
        let oldest = now.earlier_by(self.settings.retention);
        while let Some((id, first)) = self.messages.first_key_value()
            && first.message.published < oldest
        {
            self.remove(*id);
        }
    }

    /// Seeks to a time. `history` is what the topic has stored since.
    pub(super) fn seek<'a>(
        &mut self,
        to: PublishTime,
        history: impl Iterator<Item = &'a Arc<Stored>>,
        now: Instant,
        dice: &mut Dice,
    ) {
        self.last_used = now;
        self.unflushed.clear();
        for unacked in self.messages.values_mut() {
            let is_older = unacked.message.published < to;
            unacked.ends = is_older.then(|| now + dice.up_to(dice.faults.seek_lag));
        }
        for message in history {
            if !self.messages.contains_key(&message.id) {
                let due = now + dice.up_to(dice.faults.seek_lag) + dice.delivery_delay();
                self.add(Arc::clone(message), due);
            }
        }
        for id in self.ids(|old| old.ends.is_some_and(|ends| ends <= now)) {
            self.remove(id);
        }
        self.wake();
    }

    /// Ends a lease and makes the message due after the retry delay.
    fn redeliver(&mut self, id: u64, now: Instant) {
        self.release(id);
        let Some(unacked) = self.messages.get(&id) else { return };
        let delay = self.settings.retry_delays.map_or(Duration::ZERO, |delays| {
            let doublings = unacked.deliveries.saturating_sub(1).min(16);
            (delays.min * 2u32.pow(doublings)).min(delays.max)
        });
        self.reschedule(id, now + delay);
    }

    /// Lets a lease end after the ack deadline.
    fn shorten_lease(&mut self, id: u64, now: Instant) {
        if let Some(at) = self.messages.get(&id).map(|unacked| unacked.at) {
            self.reschedule(id, at.min(now + self.settings.ack_deadline));
        }
    }

    fn reschedule(&mut self, id: u64, at: Instant) {
        if let Some(unacked) = self.messages.get_mut(&id) {
            self.schedule.remove(&(unacked.at, id));
            unacked.at = at;
            self.schedule.insert((at, id));
        }
    }

    /// Takes a message from the stream that holds it.
    fn release(&mut self, id: u64) {
        let Some(unacked) = self.messages.get_mut(&id) else {
            return;
        };
        let stream = unacked.stream.take().and_then(|stream| self.streams.get_mut(&stream));
        if let Some(stream) = stream {
            stream.release(unacked.message.data.len());
        }
    }

    fn remove(&mut self, id: u64) -> Option<Unacked> {
        self.release(id);
        let removed = self.messages.remove(&id)?;
        self.schedule.remove(&(removed.at, id));
        Some(removed)
    }

    fn ids(&self, is_wanted: impl Fn(&Unacked) -> bool) -> Vec<u64> {
        let wanted = self.messages.iter().filter(|(_, unacked)| is_wanted(unacked));
        wanted.map(|(id, _)| *id).collect()
    }
}
