//! Administration of topics and subscriptions, without retries.

use std::time::Duration;

use google_cloud_gax::{options::RequestOptionsBuilder, retry_policy::NeverRetry};
use google_cloud_pubsub::{
    client::{SubscriptionAdmin, TopicAdmin},
    model::{ExpirationPolicy, RetryPolicy, Subscription},
};
use google_cloud_wkt as wkt;

use super::super::service::{NewSubscription, Page, RetryDelays, ServiceError};
use crate::PublishTime;

/// Entries per page of a list: the service's maximum.
const PAGE_SIZE: i32 = 1000;

/// The topic of a subscription whose topic was deleted.
///
/// *Source*: Pub/Sub, `Subscription.topic`.
const DELETED_TOPIC: &str = "_deleted-topic_";

pub(super) async fn create_topic(topics: &TopicAdmin, topic: &str, retention: Duration) -> Result<(), ServiceError> {
    let call = topics.create_topic().set_name(topic);
    let call = call.set_message_retention_duration(wkt_duration(retention));
    call.with_retry_policy(NeverRetry).send().await?;
    Ok(())
}

pub(super) async fn delete_topic(topics: &TopicAdmin, topic: &str) -> Result<(), ServiceError> {
    let call = topics.delete_topic().set_topic(topic);
    call.with_retry_policy(NeverRetry).send().await?;
    Ok(())
}

pub(super) async fn get_topic(topics: &TopicAdmin, topic: &str) -> Result<(), ServiceError> {
    let call = topics.get_topic().set_topic(topic);
    call.with_retry_policy(NeverRetry).send().await?;
    Ok(())
}

pub(super) async fn list_topics(topics: &TopicAdmin, project: &str, token: String) -> Result<Page, ServiceError> {
    let call = topics.list_topics().set_project(project);
    let call = call.set_page_size(PAGE_SIZE).set_page_token(token);
    let page = call.with_retry_policy(NeverRetry).send().await?;
    Ok(Page {
        names: page.topics.into_iter().map(|topic| topic.name).collect(),
        next: page.next_page_token,
    })
}

pub(super) async fn create_subscription(
    subscriptions: &SubscriptionAdmin,
    new: NewSubscription<'_>,
) -> Result<(), ServiceError> {
    let expiration = ExpirationPolicy::new().set_or_clear_ttl(new.expiration.map(wkt_duration));
    let call = subscriptions
        .create_subscription()
        .set_name(new.name)
        .set_topic(new.topic)
        .set_ack_deadline_seconds(i32::try_from(new.ack_deadline.as_secs()).unwrap_or(i32::MAX))
        .set_message_retention_duration(wkt_duration(new.retention))
        .set_expiration_policy(expiration)
        .set_or_clear_retry_policy(new.retry_delays.map(retry_policy));
    call.with_retry_policy(NeverRetry).send().await?;
    Ok(())
}

pub(super) async fn delete_subscription(subscriptions: &SubscriptionAdmin, name: &str) -> Result<(), ServiceError> {
    let call = subscriptions.delete_subscription().set_subscription(name);
    call.with_retry_policy(NeverRetry).send().await?;
    Ok(())
}

pub(super) async fn is_attached(subscriptions: &SubscriptionAdmin, name: &str) -> Result<bool, ServiceError> {
    let call = subscriptions.get_subscription().set_subscription(name);
    let Subscription { topic, detached, .. } = call.with_retry_policy(NeverRetry).send().await?;
    Ok(topic != DELETED_TOPIC && !detached)
}

pub(super) async fn list_subscriptions(
    subscriptions: &SubscriptionAdmin,
    project: &str,
    token: String,
) -> Result<Page, ServiceError> {
    let call = subscriptions.list_subscriptions().set_project(project);
    let call = call.set_page_size(PAGE_SIZE).set_page_token(token);
    let page = call.with_retry_policy(NeverRetry).send().await?;
    Ok(Page {
        names: page
            .subscriptions
            .into_iter()
            .map(|subscription| subscription.name)
            .collect(),
        next: page.next_page_token,
    })
}

pub(super) async fn seek(subscriptions: &SubscriptionAdmin, name: &str, to: PublishTime) -> Result<(), ServiceError> {
    let call = subscriptions.seek().set_subscription(name).set_time(wkt_time(to));
    call.with_retry_policy(NeverRetry).send().await?;
    Ok(())
}

fn retry_policy(delays: RetryDelays) -> RetryPolicy {
    RetryPolicy::new()
        .set_minimum_backoff(wkt_duration(delays.min))
        .set_maximum_backoff(wkt_duration(delays.max))
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
