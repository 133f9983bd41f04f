//! The calls of the engine.

use std::time::Duration;

use bus::{
    PublishTime,
    pubsub_service::{NewSubscription, OutgoingMessage, Page, PullOptions, PullSender, Service, ServiceError},
};
use futures::{FutureExt, future::BoxFuture};
use system::clock::Instant;

use super::{PubSubModel, state::State, subscription::Settings, validation};

impl Service for PubSubModel {
    fn publish<'a>(&'a self, topic: &'a str, message: OutgoingMessage) -> BoxFuture<'a, Result<(), ServiceError>> {
        let topic = topic.to_owned();
        let publish = move |state: &mut State, now| {
            validation::check_message(&message)?;
            state.publish(&topic, message, now)
        };
        self.request(publish).boxed()
    }

    fn pull<'a>(&'a self, subscription: &'a str, options: PullOptions, out: PullSender) -> BoxFuture<'a, ServiceError> {
        self.run_stream(subscription, options, out).boxed()
    }

    fn create_topic<'a>(&'a self, topic: &'a str, retention: Duration) -> BoxFuture<'a, Result<(), ServiceError>> {
        let topic = topic.to_owned();
        let create = move |state: &mut State, now| {
            validation::check_name(&topic, "topics")?;
            validation::check_retention(retention)?;
            state.create_topic(&topic, retention, now)
        };
        self.request(create).boxed()
    }

    fn delete_topic<'a>(&'a self, topic: &'a str) -> BoxFuture<'a, Result<(), ServiceError>> {
        let topic = topic.to_owned();
        self.request(move |state, now| state.delete_topic(&topic, now)).boxed()
    }

    fn get_topic<'a>(&'a self, topic: &'a str) -> BoxFuture<'a, Result<(), ServiceError>> {
        let topic = topic.to_owned();
        let get = move |state: &mut State, now| match state.find_topic(&topic, now) {
            Err(_) if state.seems_to_exist(&topic, now) => Ok(()),
            found => found,
        };
        self.request(get).boxed()
    }

    fn list_topics<'a>(&'a self, project: &'a str, token: String) -> BoxFuture<'a, Result<Page, ServiceError>> {
        let prefix = format!("{project}/topics/");
        let list = move |state: &mut State, now| {
            let names = state.topics.keys().cloned().collect();
            Ok(state.page(names, &prefix, &token, now, |state, name| {
                state.find_topic(name, now).is_ok()
            }))
        };
        self.request(list).boxed()
    }

    fn create_subscription<'a>(&'a self, new: NewSubscription<'a>) -> BoxFuture<'a, Result<(), ServiceError>> {
        let (name, topic) = (new.name.to_owned(), new.topic.to_owned());
        let settings = Settings {
            ack_deadline: new.ack_deadline,
            retention: new.retention,
            expiration: new.expiration,
            retry_delays: new.retry_delays,
        };
        let create = move |state: &mut State, now| {
            validation::check_name(&name, "subscriptions")?;
            validation::check_subscription(&settings)?;
            state.create_subscription(&name, &topic, settings, now)
        };
        self.request(create).boxed()
    }

    fn delete_subscription<'a>(&'a self, subscription: &'a str) -> BoxFuture<'a, Result<(), ServiceError>> {
        let name = subscription.to_owned();
        self.request(move |state, now| state.delete_subscription(&name, now))
            .boxed()
    }

    fn is_attached<'a>(&'a self, subscription: &'a str) -> BoxFuture<'a, Result<bool, ServiceError>> {
        let name = subscription.to_owned();
        let get = move |state: &mut State, now| {
            let attached = state.find_subscription(&name, now).map(|found| found.topic.is_some());
            match attached {
                Err(_) if state.seems_to_exist(&name, now) => Ok(true),
                attached => attached,
            }
        };
        self.request(get).boxed()
    }

    fn list_subscriptions<'a>(&'a self, project: &'a str, token: String) -> BoxFuture<'a, Result<Page, ServiceError>> {
        let prefix = format!("{project}/subscriptions/");
        let list = move |state: &mut State, now| {
            let names = state.subscriptions.keys().cloned().collect();
            Ok(state.page(names, &prefix, &token, now, |state, name| {
                state.find_subscription(name, now).is_ok()
            }))
        };
        self.request(list).boxed()
    }

    fn seek<'a>(&'a self, subscription: &'a str, to: PublishTime) -> BoxFuture<'a, Result<(), ServiceError>> {
        let name = subscription.to_owned();
        self.request(move |state, now| state.seek(&name, to, now)).boxed()
    }
}

impl State {
    /// Returns the page after the name `token` of what seems to exist.
    fn page(
        &mut self,
        existing: Vec<String>,
        prefix: &str,
        token: &str,
        now: Instant,
        is_found: impl Fn(&mut Self, &str) -> bool,
    ) -> Page {
        let mut names: Vec<String> = self.deleted.keys().cloned().chain(existing).collect();
        names.retain(|name| name.starts_with(prefix) && name.as_str() > token);
        names.sort_unstable();
        names.dedup();
        names.retain(|name| is_found(self, name) || self.seems_to_exist(name, now));
        let size = self.dice.faults.page_size.max(1);
        let next = (names.len() > size).then(|| names[size - 1].clone());
        names.truncate(size);
        Page {
            names,
            next: next.unwrap_or_default(),
        }
    }
}
