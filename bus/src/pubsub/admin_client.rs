//! Administration of topics and subscriptions: rate-limited calls with a timeout and classified
//! errors.

use std::{sync::Arc, time::Duration};

use futures::future::BoxFuture;

use super::{
    failure::Failure,
    rate_limit::RateLimit,
    service::{NewSubscription, Page, RetryDelays, Service, ServiceError},
    settings::PubSubSettings,
};
use crate::PublishTime;

/// Rate limit of calls. The service allows 100 per second and project, which several processes
/// share.
const CALLS_PER_SECOND: u32 = 40;
const BURST: u32 = 100;

/// Timeout of a call.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Expiration of an unused temporary subscription: the service's minimum. Sweeps normally remove it
/// earlier.
const TEMPORARY_TTL: Duration = Duration::from_secs(86_400);

/// Redelivery delay of nacked messages. It does not grow: a message that several readers gave back
/// would arrive long after later ones, and the next reader would join its stream behind it. Not set
/// on the emulator: it delivers to closed streams for up to 30 s, and the policy would then delay
/// the redelivery by minutes.
const RETRY_DELAYS: RetryDelays = RetryDelays {
    min: Duration::from_secs(1),
    max: Duration::from_secs(1),
};

/// Creates the rate limiter of all projects: calls count for the project of the credentials, not of
/// the resource.
///
/// *Source*: Pub/Sub, quota usage attribution.
pub(super) fn limit() -> RateLimit {
    RateLimit::new(CALLS_PER_SECOND, BURST)
}

/// A subscription's relation to its topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attachment {
    /// It receives the topic's messages.
    Attached,
    /// Its topic was deleted.
    Detached,
    /// It does not exist, or was created a moment ago.
    Missing,
}

/// Administers topics and subscriptions.
pub(super) struct Admin {
    service: Arc<dyn Service>,
    limit: Arc<RateLimit>,
    retention: Duration,
    ack_deadline: Duration,
    retry_delays: Option<RetryDelays>,
}

impl Admin {
    pub(super) fn new(service: Arc<dyn Service>, settings: &PubSubSettings, limit: Arc<RateLimit>) -> Self {
        Self {
            service,
            limit,
            retention: settings.retention,
            ack_deadline: settings.ack_deadline,
            retry_delays: settings.emulator.is_none().then_some(RETRY_DELAYS),
        }
    }

    /// Creates a topic. An existing topic is success.
    pub(super) async fn create_topic(&self, topic: &str) -> Result<(), Failure> {
        match self.call(self.service.create_topic(topic, self.retention)).await {
            Err(Failure::Exists) => Ok(()),
            created => created,
        }
    }

    /// Deletes a topic. A missing topic is success.
    pub(super) async fn delete_topic(&self, topic: &str) -> Result<(), Failure> {
        missing_is_success(self.call(self.service.delete_topic(topic)).await)
    }

    /// Returns whether a topic exists.
    pub(super) async fn has_topic(&self, topic: &str) -> Result<bool, Failure> {
        match self.call(self.service.get_topic(topic)).await {
            Ok(()) => Ok(true),
            Err(Failure::NotFound) => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    /// Lists the full names of a project's topics.
    pub(super) async fn list_topics(&self, project: &str) -> Result<Vec<String>, Failure> {
        self.list(|token| self.service.list_topics(project, token)).await
    }

    /// Lists the full names of a project's subscriptions.
    pub(super) async fn list_subscriptions(&self, project: &str) -> Result<Vec<String>, Failure> {
        self.list(|token| self.service.list_subscriptions(project, token)).await
    }

    async fn list<'a>(
        &'a self,
        page: impl Fn(String) -> BoxFuture<'a, Result<Page, ServiceError>>,
    ) -> Result<Vec<String>, Failure> {
        let (mut all, mut token) = (Vec::new(), String::new());
        loop {
            let Page { names, next } = self.call(page(token)).await?;
            all.extend(names);
            token = next;
            if token.is_empty() {
                return Ok(all);
            }
        }
    }

    /// Creates a subscription for a reader without acknowledgement.
    pub(super) async fn create_temporary(&self, subscription: &str, topic: &str) -> Result<(), Failure> {
        let new = NewSubscription {
            name: subscription,
            topic,
            ack_deadline: self.ack_deadline,
            retention: self.retention,
            expiration: Some(TEMPORARY_TTL),
            retry_delays: None,
        };
        self.call(self.service.create_subscription(new)).await
    }

    /// Creates a subscription that never expires. Returns `false` if it exists.
    pub(super) async fn create_durable(
        &self,
        subscription: &str,
        topic: &str,
        ack_deadline: Duration,
    ) -> Result<bool, Failure> {
        let new = NewSubscription {
            name: subscription,
            topic,
            ack_deadline,
            retention: self.retention,
            expiration: None,
            retry_delays: self.retry_delays,
        };
        match self.call(self.service.create_subscription(new)).await {
            Err(Failure::Exists) => Ok(false),
            created => created.map(|()| true),
        }
    }

    /// Moves a subscription to the first message published at or after this time.
    pub(super) async fn seek(&self, subscription: &str, to: PublishTime) -> Result<(), Failure> {
        self.call(self.service.seek(subscription, to)).await
    }

    /// Deletes a subscription. A missing subscription is success.
    pub(super) async fn delete_subscription(&self, subscription: &str) -> Result<(), Failure> {
        missing_is_success(self.call(self.service.delete_subscription(subscription)).await)
    }

    /// Returns whether a subscription is still attached to its topic. A detached subscription
    /// receives nothing, without an error.
    pub(super) async fn is_attached(&self, subscription: &str) -> Result<bool, Failure> {
        Ok(self.attachment(subscription).await? == Attachment::Attached)
    }

    /// Returns a subscription's relation to its topic.
    pub(super) async fn attachment(&self, subscription: &str) -> Result<Attachment, Failure> {
        match self.call(self.service.is_attached(subscription)).await {
            Ok(true) => Ok(Attachment::Attached),
            Ok(false) => Ok(Attachment::Detached),
            Err(Failure::NotFound) => Ok(Attachment::Missing),
            Err(failure) => Err(failure),
        }
    }

    async fn call<T>(&self, call: impl Future<Output = Result<T, ServiceError>>) -> Result<T, Failure> {
        self.limit.acquire().await;
        match tokio::time::timeout(CALL_TIMEOUT, call).await {
            Ok(answer) => answer.map_err(Failure::from),
            Err(_) => Err(Failure::timeout(CALL_TIMEOUT)),
        }
    }
}

fn missing_is_success(answer: Result<(), Failure>) -> Result<(), Failure> {
    match answer {
        Err(Failure::NotFound) => Ok(()),
        answer => answer,
    }
}
