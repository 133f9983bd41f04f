//! The whole state of the service.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bus::{PublishTime, pubsub_service::OutgoingMessage};
use bytes::Bytes;
use rand::rngs::StdRng;
use system::clock::{Instant, steady};

use super::{Faults, dice::Dice, subscription::Subscription, topics::Topic};

/// A stored message.
pub(super) struct Stored {
    /// Ascends with the publish time.
    pub(super) id: u64,
    pub(super) published: PublishTime,
    pub(super) attributes: Vec<(&'static str, String)>,
    pub(super) data: Bytes,
}

pub(super) struct State {
    pub(super) topics: BTreeMap<String, Topic>,
    pub(super) subscriptions: BTreeMap<String, Subscription>,
    /// Names of deleted topics and subscriptions, and until when they may seem to exist.
    pub(super) deleted: BTreeMap<String, Instant>,
    pub(super) dice: Dice,
    paused: Option<Instant>,
    started: Instant,
    wall: Duration,
    newest: PublishTime,
    last_number: u64,
}

impl State {
    pub(super) fn new(rng: StdRng, wall: Duration) -> Self {
        let faults = Faults::default();
        Self {
            topics: BTreeMap::new(),
            subscriptions: BTreeMap::new(),
            deleted: BTreeMap::new(),
            dice: Dice { rng, faults },
            paused: None,
            started: steady(),
            wall,
            newest: PublishTime(0),
            last_number: 0,
        }
    }

    /// Returns the time of the service's wall clock.
    pub(super) fn wall(&self, now: Instant) -> PublishTime {
        PublishTime(0).later_by(self.wall + (now - self.started))
    }

    /// Returns a new number, for messages, streams and subscriptions.
    pub(super) fn number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    /// Gives a message its id and publish time. No two messages have the same.
    pub(super) fn stored(&mut self, message: OutgoingMessage, now: Instant) -> Arc<Stored> {
        self.newest = self.wall(now).max(PublishTime(self.newest.0 + 1));
        Arc::new(Stored {
            id: self.number(),
            published: self.newest,
            attributes: message.attributes,
            data: message.data,
        })
    }

    pub(super) fn is_paused(&self) -> bool {
        self.paused.is_some()
    }

    pub(super) fn pause(&mut self, now: Instant) {
        self.paused.get_or_insert(now);
    }

    /// Ends a pause. Leases that could not be extended meanwhile have ended.
    pub(super) fn resume(&mut self, now: Instant) {
        let Some(since) = self.paused.take() else { return };
        for subscription in self.subscriptions.values_mut() {
            subscription.end_leases_after_pause(since, now);
        }
        self.wake_streams();
    }

    pub(super) fn wake_streams(&self) {
        for subscription in self.subscriptions.values() {
            subscription.wake();
        }
    }

    /// Removes subscriptions that have not been used for their expiration.
    pub(super) fn expire(&mut self, now: Instant) {
        let expired = |subscription: &mut Subscription| subscription.is_expired(now);
        let names = self.subscriptions.iter_mut();
        let expired: Vec<String> = names
            .filter_map(|(name, subscription)| expired(subscription).then(|| name.clone()))
            .collect();
        for name in expired {
            self.remove_subscription(&name);
        }
    }

    /// Removes a subscription; its streams end. Returns whether it existed.
    pub(super) fn remove_subscription(&mut self, name: &str) -> bool {
        let Some(subscription) = self.subscriptions.remove(name) else {
            return false;
        };
        if let Some(topic) = subscription.topic.as_ref().and_then(|topic| self.topics.get_mut(topic)) {
            topic.subscriptions.remove(name);
        }
        subscription.wake();
        true
    }
}
