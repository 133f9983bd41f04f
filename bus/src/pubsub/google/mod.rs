//! Google's service, through its client library.

mod admin;
mod clients;
mod error;
mod publishers;

use std::time::Duration;

use futures::{FutureExt, future::BoxFuture};
use google_cloud_pubsub::{client::Subscriber, subscriber::ShutdownBehavior};
use google_cloud_wkt as wkt;

use self::{clients::Clients, publishers::Publishers};
use super::{
    service::{
        NewSubscription, OutgoingMessage, Page, PullOptions, PullSender, ReceivedMessage, Service, ServiceError,
    },
    settings::PubSubSettings,
};
use crate::{BusError, PublishTime};

/// Google's service, or its emulator.
pub(super) struct Google {
    clients: Clients,
    publishers: Publishers,
}

impl Google {
    /// Creates the clients without connecting.
    ///
    /// # Errors
    /// [`BusError::Settings`] for invalid credentials.
    pub(super) async fn new(settings: &PubSubSettings) -> Result<Self, BusError> {
        let clients = Clients::new(settings).await?;
        Ok(Self {
            publishers: Publishers::new(clients.publisher.clone()),
            clients,
        })
    }

    async fn forward(&self, subscription: &str, options: PullOptions, out: PullSender) -> ServiceError {
        let slot = match self.clients.channels.slot(options.durable).await {
            Ok(slot) => slot,
            Err(error) => return error,
        };
        receive(&slot.subscriber, subscription, options, &out).await
    }
}

async fn receive(subscriber: &Subscriber, subscription: &str, options: PullOptions, out: &PullSender) -> ServiceError {
    let mut stream = subscriber
        .subscribe(subscription)
        .set_max_lease(options.max_lease)
        .set_max_lease_extension(options.lease_extension)
        .set_max_outstanding_messages(options.max_outstanding_messages)
        .set_max_outstanding_bytes(options.max_outstanding_bytes)
        .set_shutdown_behavior(ShutdownBehavior::NackImmediately)
        .build();
    loop {
        match stream.next().await {
            Some(Ok((message, handler))) => {
                let received = ReceivedMessage {
                    attributes: message.attributes,
                    data: message.data,
                    published: message.publish_time.map(publish_time),
                    ack: handler.into(),
                };
                if let Err(dropped) = out.send(received).await {
                    return dropped;
                }
            }
            Some(Err(error)) => return ServiceError::from(error),
            None => return ServiceError::Unavailable("the stream ended".to_owned()),
        }
    }
}

impl Service for Google {
    fn publish<'a>(&'a self, topic: &'a str, message: OutgoingMessage) -> BoxFuture<'a, Result<(), ServiceError>> {
        self.publishers.publish(topic, message).boxed()
    }

    fn pull<'a>(&'a self, subscription: &'a str, options: PullOptions, out: PullSender) -> BoxFuture<'a, ServiceError> {
        self.forward(subscription, options, out).boxed()
    }

    fn create_topic<'a>(&'a self, topic: &'a str, retention: Duration) -> BoxFuture<'a, Result<(), ServiceError>> {
        admin::create_topic(&self.clients.topics, topic, retention).boxed()
    }

    fn delete_topic<'a>(&'a self, topic: &'a str) -> BoxFuture<'a, Result<(), ServiceError>> {
        admin::delete_topic(&self.clients.topics, topic).boxed()
    }

    fn get_topic<'a>(&'a self, topic: &'a str) -> BoxFuture<'a, Result<(), ServiceError>> {
        admin::get_topic(&self.clients.topics, topic).boxed()
    }

    fn list_topics<'a>(&'a self, project: &'a str, token: String) -> BoxFuture<'a, Result<Page, ServiceError>> {
        admin::list_topics(&self.clients.topics, project, token).boxed()
    }

    fn create_subscription<'a>(&'a self, subscription: NewSubscription<'a>) -> BoxFuture<'a, Result<(), ServiceError>> {
        admin::create_subscription(&self.clients.subscriptions, subscription).boxed()
    }

    fn delete_subscription<'a>(&'a self, subscription: &'a str) -> BoxFuture<'a, Result<(), ServiceError>> {
        admin::delete_subscription(&self.clients.subscriptions, subscription).boxed()
    }

    fn is_attached<'a>(&'a self, subscription: &'a str) -> BoxFuture<'a, Result<bool, ServiceError>> {
        admin::is_attached(&self.clients.subscriptions, subscription).boxed()
    }

    fn list_subscriptions<'a>(&'a self, project: &'a str, token: String) -> BoxFuture<'a, Result<Page, ServiceError>> {
        admin::list_subscriptions(&self.clients.subscriptions, project, token).boxed()
    }

    fn seek<'a>(&'a self, subscription: &'a str, to: PublishTime) -> BoxFuture<'a, Result<(), ServiceError>> {
        admin::seek(&self.clients.subscriptions, subscription, to).boxed()
    }
}

fn publish_time(time: wkt::Timestamp) -> PublishTime {
    let seconds = u64::try_from(time.seconds()).unwrap_or_default();
    let micros = u64::try_from(time.nanos()).unwrap_or_default() / 1000;
    PublishTime(seconds.saturating_mul(1_000_000).saturating_add(micros))
}
