//! Topics: they store messages for the retention and pass them to their subscriptions.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use bus::{
    PublishTime,
    pubsub_service::{OutgoingMessage, ServiceError},
};
use system::clock::Instant;

use super::{
    state::{State, Stored},
    subscription::{Settings, Subscription},
};

pub(super) struct Topic {
    retention: Duration,
    messages: VecDeque<Arc<Stored>>,
    /// Names of the attached subscriptions.
    pub(super) subscriptions: BTreeSet<String>,
    /// Until then it may seem to be missing.
    missing_until: Instant,
}

impl Topic {
    /// Removes messages that are older than the retention.
    fn prune(&mut self, now: PublishTime) {
        let oldest = now.earlier_by(self.retention);
        while self.messages.front().is_some_and(|message| message.published < oldest) {
            self.messages.pop_front();
        }
    }
}

impl State {
    /// Creates a topic.
    pub(super) fn create_topic(&mut self, name: &str, retention: Duration, now: Instant) -> Result<(), ServiceError> {
        if self.topics.contains_key(name) {
            return Err(ServiceError::AlreadyExists);
        }
        self.check_room(name, self.topics.keys())?;
        let topic = Topic {
            retention,
            messages: VecDeque::new(),
            subscriptions: BTreeSet::new(),
            missing_until: now + self.dice.up_to(self.dice.faults.admin_lag),
        };
        self.topics.insert(name.to_owned(), topic);
        Ok(())
    }

    /// Deletes a topic. Its subscriptions keep their messages and get no others.
    pub(super) fn delete_topic(&mut self, name: &str, now: Instant) -> Result<(), ServiceError> {
        self.find_topic(name, now)?;
        let Some(topic) = self.topics.remove(name) else {
            return Err(ServiceError::NotFound);
        };
        for name in &topic.subscriptions {
            if let Some(subscription) = self.subscriptions.get_mut(name) {
                subscription.topic = None;
            }
        }
        self.mark_deleted(name, now);
        Ok(())
    }

    /// Returns a topic's error: that it is missing, or seems to be.
    pub(super) fn find_topic(&mut self, name: &str, now: Instant) -> Result<(), ServiceError> {
        let topic = self.topics.get(name).ok_or(ServiceError::NotFound)?;
        if now < topic.missing_until && self.dice.chance(0.5) {
            return Err(ServiceError::NotFound);
        }
        Ok(())
    }

    /// Publishes a message, or stores it twice.
    pub(super) fn publish(&mut self, topic: &str, message: OutgoingMessage, now: Instant) -> Result<(), ServiceError> {
        self.find_topic(topic, now)?;
        if self.dice.chance(self.dice.faults.publish_twice) {
            self.store(topic, message.clone(), now);
        }
        self.store(topic, message, now);
        Ok(())
    }

    fn store(&mut self, topic: &str, message: OutgoingMessage, now: Instant) {
        let stored = self.stored(message, now);
        let Some(topic) = self.topics.get_mut(topic) else {
            return;
        };
        topic.prune(stored.published);
        topic.messages.push_back(Arc::clone(&stored));
        for name in &topic.subscriptions {
            if let Some(subscription) = self.subscriptions.get_mut(name) {
                subscription.prune(stored.published);
                subscription.add(Arc::clone(&stored), now + self.dice.delivery_delay());
            }
        }
    }

    /// Creates a subscription, which gets the messages that are published from now on.
    pub(super) fn create_subscription(
        &mut self,
        name: &str,
        topic: &str,
        settings: Settings,
        now: Instant,
    ) -> Result<(), ServiceError> {
        self.expire(now);
        if self.subscriptions.contains_key(name) {
            return Err(ServiceError::AlreadyExists);
        }
        self.find_topic(topic, now)?;
        self.check_room(name, self.subscriptions.keys())?;
        let missing_until = now + self.dice.up_to(self.dice.faults.admin_lag);
        let subscription = Subscription::new(self.number(), topic, settings, missing_until, now);
        self.subscriptions.insert(name.to_owned(), subscription);
        if let Some(topic) = self.topics.get_mut(topic) {
            topic.subscriptions.insert(name.to_owned());
        }
        Ok(())
    }

    /// Deletes a subscription.
    pub(super) fn delete_subscription(&mut self, name: &str, now: Instant) -> Result<(), ServiceError> {
        self.find_subscription(name, now)?;
        self.remove_subscription(name);
        self.mark_deleted(name, now);
        Ok(())
    }

    /// Returns a subscription, unless it is missing or seems to be.
    pub(super) fn find_subscription(&mut self, name: &str, now: Instant) -> Result<&mut Subscription, ServiceError> {
        self.expire(now);
        let subscription = self.subscriptions.get_mut(name).ok_or(ServiceError::NotFound)?;
        if now < subscription.missing_until && self.dice.chance(0.5) {
            return Err(ServiceError::NotFound);
        }
        Ok(subscription)
    }

    /// Seeks a subscription to a time.
    pub(super) fn seek(&mut self, name: &str, to: PublishTime, now: Instant) -> Result<(), ServiceError> {
        self.find_subscription(name, now)?;
        let wall = self.wall(now);
        let Some(subscription) = self.subscriptions.get_mut(name) else {
            return Err(ServiceError::NotFound);
        };
        let history = subscription.topic.as_ref().and_then(|topic| {
            let topic = self.topics.get_mut(topic)?;
            topic.prune(wall);
            let from = topic.messages.partition_point(|message| message.published < to);
            Some(topic.messages.range(from..))
        });
        subscription.seek(to, history.into_iter().flatten(), now, &mut self.dice);
        Ok(())
    }

    /// Remembers that a name may still seem to exist.
    fn mark_deleted(&mut self, name: &str, now: Instant) {
        let lag = self.dice.up_to(self.dice.faults.admin_lag);
        self.deleted.retain(|_, until| *until > now);
        if !lag.is_zero() {
            self.deleted.insert(name.to_owned(), now + lag);
        }
    }

    /// Returns whether a name that does not exist seems to.
    pub(super) fn seems_to_exist(&mut self, name: &str, now: Instant) -> bool {
        self.deleted.get(name).is_some_and(|until| now < *until) && self.dice.chance(0.5)
    }

    fn check_room<'a>(&self, name: &str, all: impl Iterator<Item = &'a String>) -> Result<(), ServiceError> {
        let project = project(name);
        let used = all.filter(|other| other.starts_with(project)).count();
        if used < self.dice.faults.max_resources {
            return Ok(());
        }
        Err(ServiceError::ResourceExhausted {
            reason: None,
            message: "the project has its maximum number of resources".to_owned(),
        })
    }
}

/// Returns `projects/P/` of a full name.
fn project(name: &str) -> &str {
    let end = name.match_indices('/').nth(1).map_or(name.len(), |(at, _)| at + 1);
    &name[..end]
}
