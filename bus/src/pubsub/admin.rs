//! Calls that make, look at and remove topics and subscriptions: rate-limited, bounded in time, their errors told apart.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use google_cloud_gax::{options::RequestOptionsBuilder, retry_policy::NeverRetry};
use google_cloud_pubsub::{
    client::{SubscriptionAdmin, TopicAdmin},
    model::{ExpirationPolicy, RetryPolicy, Subscription},
};
use google_cloud_wkt as wkt;
use governor::{DefaultDirectRateLimiter, Jitter, Quota, RateLimiter};

use super::{
    clients::Clients,
    failure::Failure,
    settings::{DURABLE_ACK_DEADLINE, PubSubSettings},
};
use crate::PublishTime;

/// Calls a second, and how many at once before that counts. The service allows a project 100 a second; several processes share it.
const CALLS_A_SECOND: NonZeroU32 = NonZeroU32::new(40).expect("not zero");
const BURST: NonZeroU32 = NonZeroU32::new(100).expect("not zero");

/// What is added to a wait for the limit, so that processes that started together do not call together.
const JITTER: Duration = Duration::from_millis(50);

/// How long a call may take.
const CALL_WAIT: Duration = Duration::from_secs(10);

/// Entries of a list that one call brings: the most there is.
const PAGE: i32 = 1000;

/// What the service writes in place of the topic that a subscription had.
const DELETED_TOPIC: &str = "_deleted-topic_";

/// A subscription that nobody uses goes by itself after this: the least there is. The safety net of the safety net.
const TEMPORARY_LIFE: Duration = Duration::from_secs(86_400);

/// A message that was given back comes again after between these. Not at the emulator: it hands messages to a closed stream for up to half a minute more, and
/// what is due again then, under such a policy, may not come for minutes.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MOST: Duration = Duration::from_secs(60);

/// How often the service is called.
pub(super) type Limit = DefaultDirectRateLimiter;

/// One for all projects: calls count for the project of the credentials, not for that of what is called (Pub/Sub, quota usage attribution).
pub(super) fn limit() -> Limit {
    RateLimiter::direct(Quota::per_second(CALLS_A_SECOND).allow_burst(BURST))
}

/// Topics and subscriptions, made, looked at and removed.
pub(super) struct Admin {
    topics: TopicAdmin,
    subscriptions: SubscriptionAdmin,
    limit: Arc<Limit>,
    retention: wkt::Duration,
    ack_deadline_seconds: i32,
    retry: Option<RetryPolicy>,
}

impl Admin {
    pub(super) fn new(clients: &Clients, settings: &PubSubSettings, limit: Arc<Limit>) -> Self {
        Self {
            topics: clients.topics.clone(),
            subscriptions: clients.subscriptions.clone(),
            limit,
            retention: wkt_duration(settings.retention),
            ack_deadline_seconds: i32::try_from(settings.ack_deadline.as_secs()).unwrap_or(i32::MAX),
            retry: settings.emulator.is_none().then(retry_policy),
        }
    }

    /// Makes a topic. One that exists is success.
    pub(super) async fn create_topic(&self, topic: &str) -> Result<(), Failure> {
        let call = self.topics.create_topic().set_name(topic);
        let call = call.set_message_retention_duration(self.retention);
        match self.call(call.with_retry_policy(NeverRetry).send()).await {
            Err(Failure::Exists) => Ok(()),
            made => made.map(drop),
        }
    }

    /// Removes a topic. One that does not exist is success.
    pub(super) async fn delete_topic(&self, topic: &str) -> Result<(), Failure> {
        let call = self.topics.delete_topic().set_topic(topic);
        gone_is_done(self.call(call.with_retry_policy(NeverRetry).send()).await)
    }

    /// Whether there is such a topic.
    pub(super) async fn has_topic(&self, topic: &str) -> Result<bool, Failure> {
        let call = self.topics.get_topic().set_topic(topic);
        match self.call(call.with_retry_policy(NeverRetry).send()).await {
            Ok(_) => Ok(true),
            Err(Failure::NotFound) => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    /// The project's topics, in full.
    pub(super) async fn list_topics(&self, project: &str) -> Result<Vec<String>, Failure> {
        let (mut names, mut token) = (Vec::new(), String::new());
        loop {
            let list = self.topics.list_topics().set_project(project).set_page_size(PAGE);
            let page = list.set_page_token(token).with_retry_policy(NeverRetry);
            let page = self.call(page.send()).await?;
            names.extend(page.topics.into_iter().map(|topic| topic.name));
            token = page.next_page_token;
            if token.is_empty() {
                return Ok(names);
            }
        }
    }

    /// The project's subscriptions, in full.
    pub(super) async fn list_subscriptions(&self, project: &str) -> Result<Vec<String>, Failure> {
        let (mut names, mut token) = (Vec::new(), String::new());
        loop {
            let list = self.subscriptions.list_subscriptions().set_project(project);
            let page = list
                .set_page_size(PAGE)
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

    /// Makes a subscription for a reader that settles nothing.
    pub(super) async fn create_temporary(&self, subscription: &str, topic: &str) -> Result<(), Failure> {
        let expires = ExpirationPolicy::new().set_ttl(wkt_duration(TEMPORARY_LIFE));
        self.create(subscription, topic, expires, (None, self.ack_deadline_seconds))
            .await
    }

    /// Makes a subscription that never expires. One that exists is success.
    pub(super) async fn create_durable(&self, subscription: &str, topic: &str) -> Result<(), Failure> {
        let never = ExpirationPolicy::new();
        let seconds = i32::try_from(DURABLE_ACK_DEADLINE.as_secs()).unwrap_or(i32::MAX);
        match self
            .create(subscription, topic, never, (self.retry.clone(), seconds))
            .await
        {
            Err(Failure::Exists) => Ok(()),
            made => made,
        }
    }

    async fn create(
        &self,
        subscription: &str,
        topic: &str,
        expires: ExpirationPolicy,
        (again, ack_deadline_seconds): (Option<RetryPolicy>, i32),
    ) -> Result<(), Failure> {
        let call = self
            .subscriptions
            .create_subscription()
            .set_name(subscription)
            .set_topic(topic)
            .set_ack_deadline_seconds(ack_deadline_seconds)
            .set_message_retention_duration(self.retention)
            .set_expiration_policy(expires)
            .set_or_clear_retry_policy(again);
        self.call(call.with_retry_policy(NeverRetry).send()).await.map(drop)
    }

    /// Lets a subscription begin with what was published at or after this time.
    pub(super) async fn seek(&self, subscription: &str, to: PublishTime) -> Result<(), Failure> {
        let call = self
            .subscriptions
            .seek()
            .set_subscription(subscription)
            .set_time(wkt_time(to));
        self.call(call.with_retry_policy(NeverRetry).send()).await.map(drop)
    }

    /// Removes a subscription. One that does not exist is success.
    pub(super) async fn delete_subscription(&self, subscription: &str) -> Result<(), Failure> {
        let call = self.subscriptions.delete_subscription().set_subscription(subscription);
        gone_is_done(self.call(call.with_retry_policy(NeverRetry).send()).await)
    }

    /// Whether a subscription still gets what is published to its topic. One that lost its topic gets nothing for ever, without an error.
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
        match tokio::time::timeout(CALL_WAIT, call).await {
            Ok(answer) => answer.map_err(Failure::from),
            Err(_) => Err(Failure::silent(CALL_WAIT)),
        }
    }
}

fn retry_policy() -> RetryPolicy {
    RetryPolicy::new()
        .set_minimum_backoff(wkt_duration(RETRY_FIRST))
        .set_maximum_backoff(wkt_duration(RETRY_MOST))
}

fn gone_is_done<T>(answer: Result<T, Failure>) -> Result<(), Failure> {
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

/// When the service took a message.
pub(super) fn published(time: Option<&wkt::Timestamp>) -> PublishTime {
    let Some(time) = time else { return PublishTime::now() };
    let seconds = u64::try_from(time.seconds()).unwrap_or_default();
    let micros = u64::try_from(time.nanos()).unwrap_or_default() / 1000;
    PublishTime(seconds.saturating_mul(1_000_000).saturating_add(micros))
}
