//! Administration of topics and subscriptions: rate-limited calls with a timeout and classified
//! errors.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use google_cloud_gax::{options::RequestOptionsBuilder, retry_policy::NeverRetry};
use google_cloud_pubsub::{
    client::{SubscriptionAdmin, TopicAdmin},
    model::{ExpirationPolicy, RetryPolicy, Subscription},
};
use google_cloud_wkt as wkt;
use governor::{DefaultDirectRateLimiter, Jitter, Quota, RateLimiter};

use super::{clients::Clients, failure::Failure, settings::PubSubSettings};
use crate::PublishTime;

/// Rate limit of calls. The service allows 100 per second and project, which several processes
/// share.
const CALLS_PER_SECOND: NonZeroU32 = NonZeroU32::new(40).expect("not zero");
const BURST: NonZeroU32 = NonZeroU32::new(100).expect("not zero");

/// Jitter of waits for the rate limit, which spreads the calls of processes that started together.
const JITTER: Duration = Duration::from_millis(50);

/// Timeout of a call.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Entries per page of a list: the service's maximum.
const PAGE_SIZE: i32 = 1000;

/// The topic of a subscription whose topic was deleted.
///
/// *Source*: Pub/Sub, `Subscription.topic`.
const DELETED_TOPIC: &str = "_deleted-topic_";

/// Expiration of an unused temporary subscription: the service's minimum. Sweeps normally remove it
/// earlier.
const TEMPORARY_TTL: Duration = Duration::from_secs(86_400);

/// Redelivery delay of nacked messages. Not set on the emulator: it delivers to closed streams for
/// up to 30 s, and the policy would then delay the redelivery by minutes.
const MIN_RETRY_DELAY: Duration = Duration::from_secs(1);
const MAX_RETRY_DELAY: Duration = Duration::from_secs(60);

/// Rate limiter of calls.
pub(super) type Limit = DefaultDirectRateLimiter;

/// Creates the rate limiter of all projects: calls count for the project of the credentials, not of
/// the resource.
///
/// *Source*: Pub/Sub, quota usage attribution.
pub(super) fn limit() -> Limit {
    RateLimiter::direct(Quota::per_second(CALLS_PER_SECOND).allow_burst(BURST))
}

/// Administers topics and subscriptions.
pub(super) struct Admin {
    topics: TopicAdmin,
    subscriptions: SubscriptionAdmin,
    limit: Arc<Limit>,
    retention: wkt::Duration,
    ack_deadline_seconds: i32,
    retry_policy: Option<RetryPolicy>,
}

/// Settings in which temporary and durable subscriptions differ.
struct SubscriptionOptions {
    expiration: ExpirationPolicy,
    retry_policy: Option<RetryPolicy>,
    ack_deadline_seconds: i32,
}

impl Admin {
    pub(super) fn new(clients: &Clients, settings: &PubSubSettings, limit: Arc<Limit>) -> Self {
        Self {
            topics: clients.topics.clone(),
            subscriptions: clients.subscriptions.clone(),
            limit,
            retention: wkt_duration(settings.retention),
            ack_deadline_seconds: i32::try_from(settings.ack_deadline.as_secs()).unwrap_or(i32::MAX),
            retry_policy: settings.emulator.is_none().then(retry_policy),
        }
    }

    /// Creates a topic. An existing topic is success.
    pub(super) async fn create_topic(&self, topic: &str) -> Result<(), Failure> {
        let call = self.topics.create_topic().set_name(topic);
        let call = call.set_message_retention_duration(self.retention);
        match self.call(call.with_retry_policy(NeverRetry).send()).await {
            Err(Failure::Exists) => Ok(()),
            created => created.map(drop),
        }
    }

    /// Deletes a topic. A missing topic is success.
    pub(super) async fn delete_topic(&self, topic: &str) -> Result<(), Failure> {
        let call = self.topics.delete_topic().set_topic(topic);
        missing_is_success(self.call(call.with_retry_policy(NeverRetry).send()).await)
    }

    /// Returns whether a topic exists.
    pub(super) async fn has_topic(&self, topic: &str) -> Result<bool, Failure> {
        let call = self.topics.get_topic().set_topic(topic);
        match self.call(call.with_retry_policy(NeverRetry).send()).await {
            Ok(_) => Ok(true),
            Err(Failure::NotFound) => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    /// Lists the full names of a project's topics.
    pub(super) async fn list_topics(&self, project: &str) -> Result<Vec<String>, Failure> {
        let (mut names, mut token) = (Vec::new(), String::new());
        loop {
            let list = self.topics.list_topics().set_project(project).set_page_size(PAGE_SIZE);
            let page = list.set_page_token(token).with_retry_policy(NeverRetry);
            let page = self.call(page.send()).await?;
            names.extend(page.topics.into_iter().map(|topic| topic.name));
            token = page.next_page_token;
            if token.is_empty() {
                return Ok(names);
            }
        }
    }

    /// Lists the full names of a project's subscriptions.
    pub(super) async fn list_subscriptions(&self, project: &str) -> Result<Vec<String>, Failure> {
        let (mut names, mut token) = (Vec::new(), String::new());
        loop {
            let list = self.subscriptions.list_subscriptions().set_project(project);
            let page = list
                .set_page_size(PAGE_SIZE)
                .set_page_token(token)
                .with_retry_policy(NeverRetry);
            let page = self.call(page.send()).await?;
            names.extend(page.subscriptions.into_iter().map(|subscription| subscription.name));
            token = page.next_page_token;
            if token.is_empty() {
                return Ok(names);
            }
        }
    }

    /// Creates a subscription for a reader without acknowledgement.
    pub(super) async fn create_temporary(&self, subscription: &str, topic: &str) -> Result<(), Failure> {
        let options = SubscriptionOptions {
            expiration: ExpirationPolicy::new().set_ttl(wkt_duration(TEMPORARY_TTL)),
            retry_policy: None,
            ack_deadline_seconds: self.ack_deadline_seconds,
        };
        self.create(subscription, topic, options).await
    }

    /// Creates a subscription that never expires. An existing subscription is success.
    pub(super) async fn create_durable(
        &self,
        subscription: &str,
        topic: &str,
        ack_deadline: Duration,
    ) -> Result<(), Failure> {
        let options = SubscriptionOptions {
            expiration: ExpirationPolicy::new(),
            retry_policy: self.retry_policy.clone(),
            ack_deadline_seconds: i32::try_from(ack_deadline.as_secs()).unwrap_or(i32::MAX),
        };
        match self.create(subscription, topic, options).await {
            Err(Failure::Exists) => Ok(()),
            created => created,
        }
    }

    async fn create(&self, subscription: &str, topic: &str, options: SubscriptionOptions) -> Result<(), Failure> {
        let call = self
            .subscriptions
            .create_subscription()
            .set_name(subscription)
            .set_topic(topic)
            .set_ack_deadline_seconds(options.ack_deadline_seconds)
            .set_message_retention_duration(self.retention)
            .set_expiration_policy(options.expiration)
            .set_or_clear_retry_policy(options.retry_policy);
        self.call(call.with_retry_policy(NeverRetry).send()).await.map(drop)
    }

    /// Moves a subscription to the first message published at or after this time.
    pub(super) async fn seek(&self, subscription: &str, to: PublishTime) -> Result<(), Failure> {
        let call = self
            .subscriptions
            .seek()
            .set_subscription(subscription)
            .set_time(wkt_time(to));
        self.call(call.with_retry_policy(NeverRetry).send()).await.map(drop)
    }

    /// Deletes a subscription. A missing subscription is success.
    pub(super) async fn delete_subscription(&self, subscription: &str) -> Result<(), Failure> {
        let call = self.subscriptions.delete_subscription().set_subscription(subscription);
        missing_is_success(self.call(call.with_retry_policy(NeverRetry).send()).await)
    }

    /// Returns whether a subscription is still attached to its topic. A detached subscription
    /// receives nothing, without an error.
    pub(super) async fn is_attached(&self, subscription: &str) -> Result<bool, Failure> {
        let call = self.subscriptions.get_subscription().set_subscription(subscription);
        match self.call(call.with_retry_policy(NeverRetry).send()).await {
            Ok(Subscription { topic, detached, .. }) => Ok(topic != DELETED_TOPIC && !detached),
            Err(Failure::NotFound) => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    async fn call<T>(&self, call: impl Future<Output = google_cloud_pubsub::Result<T>>) -> Result<T, Failure> {
        self.limit.until_ready_with_jitter(Jitter::up_to(JITTER)).await;
        match tokio::time::timeout(CALL_TIMEOUT, call).await {
            Ok(answer) => answer.map_err(Failure::from),
            Err(_) => Err(Failure::timeout(CALL_TIMEOUT)),
        }
    }
}

fn retry_policy() -> RetryPolicy {
    RetryPolicy::new()
        .set_minimum_backoff(wkt_duration(MIN_RETRY_DELAY))
        .set_maximum_backoff(wkt_duration(MAX_RETRY_DELAY))
}

fn missing_is_success<T>(answer: Result<T, Failure>) -> Result<(), Failure> {
    match answer {
        Ok(_) | Err(Failure::NotFound) => Ok(()),
        Err(failure) => Err(failure),
    }
}

fn wkt_duration(duration: Duration) -> wkt::Duration {
    let seconds = i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    wkt::Duration::clamp(seconds, i32::try_from(duration.subsec_nanos()).unwrap_or_default())
}

fn wkt_time(time: PublishTime) -> wkt::Timestamp {
    let seconds = i64::try_from(time.0 / 1_000_000).unwrap_or(i64::MAX);
    let nanos = i32::try_from(time.0 % 1_000_000 * 1000).unwrap_or_default();
    wkt::Timestamp::clamp(seconds, nanos)
}

/// Converts the publish time of a message.
pub(super) fn publish_time(time: Option<&wkt::Timestamp>) -> PublishTime {
    let Some(time) = time else { return PublishTime::now() };
    let seconds = u64::try_from(time.seconds()).unwrap_or_default();
    let micros = u64::try_from(time.nanos()).unwrap_or_default() / 1000;
    PublishTime(seconds.saturating_mul(1_000_000).saturating_add(micros))
}
