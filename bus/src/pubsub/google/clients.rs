//! Credentials and clients of the Pub/Sub library.

use std::{sync::Arc, time::Duration};

use google_cloud_auth::credentials::{Builder, Credentials, anonymous};
use google_cloud_gax::retry_policy::RetryPolicyExt;
use google_cloud_pubsub::{
    client::{BasePublisher, Subscriber, SubscriptionAdmin, TopicAdmin},
    retry_policy::RetryableErrors,
};
use tokio::sync::Mutex;

use super::super::{service::ServiceError, settings::PubSubSettings};
use crate::BusError;

/// Total time of the library's own publish retries: longer than a slow answer, shorter than a
/// collector's shutdown deadline.
const PUBLISH_RETRY_TIME: Duration = Duration::from_secs(5);

/// Maximum streams per connection. The service's limit is about 100, which acks and lease
/// extensions share.
const MAX_STREAMS_PER_CHANNEL: usize = 60;

/// OAuth scope of the credentials.
const SCOPE: &str = "https://www.googleapis.com/auth/pubsub";

/// The clients. The process needs one of each, and one subscriber per connection.
pub(super) struct Clients {
    pub(super) publisher: BasePublisher,
    pub(super) topics: TopicAdmin,
    pub(super) subscriptions: SubscriptionAdmin,
    pub(super) channels: Channels,
}

impl Clients {
    /// Creates the clients without connecting.
    ///
    /// # Errors
    /// [`BusError::Settings`] for invalid credentials.
    pub(super) async fn new(settings: &PubSubSettings) -> Result<Self, BusError> {
        let endpoint = Endpoint {
            credentials: credentials(settings)?,
            url: settings.emulator.as_ref().map(|host| format!("http://{host}")),
        };
        let failed = |error: google_cloud_gax::client_builder::Error| BusError::Settings(error.to_string());
        let publisher = BasePublisher::builder().with_retry_policy(RetryableErrors.with_time_limit(PUBLISH_RETRY_TIME));
        let topics = TopicAdmin::builder().with_credentials(endpoint.credentials.clone());
        let subscriptions = SubscriptionAdmin::builder().with_credentials(endpoint.credentials.clone());
        let (mut publisher, mut topics, mut subscriptions) = (
            publisher.with_credentials(endpoint.credentials.clone()),
            topics,
            subscriptions,
        );
        if let Some(url) = &endpoint.url {
            publisher = publisher.with_endpoint(url);
            topics = topics.with_endpoint(url);
            subscriptions = subscriptions.with_endpoint(url);
        }
        Ok(Self {
            publisher: publisher.build().await.map_err(failed)?,
            topics: topics.build().await.map_err(failed)?,
            subscriptions: subscriptions.build().await.map_err(failed)?,
            channels: Channels {
                endpoint,
                open: Mutex::default(),
            },
        })
    }
}

/// How clients reach the service.
struct Endpoint {
    credentials: Credentials,
    /// URL of an emulator.
    url: Option<String>,
}

fn credentials(settings: &PubSubSettings) -> Result<Credentials, BusError> {
    if settings.emulator.is_some() {
        return Ok(anonymous::Builder::new().build());
    }
    Builder::default().with_scopes([SCOPE]).build().map_err(|error| {
        let cause = if error.is_loading() {
            "cannot be read"
        } else if error.is_parsing() || error.is_unknown_type() || error.is_missing_field() {
            "are not valid Google credentials"
        } else {
            "cannot be used"
        };
        BusError::Settings(format!(
            "the Google credentials {cause}: {error}; set GOOGLE_APPLICATION_CREDENTIALS to the file of a service account, or run \
             `gcloud auth application-default login`"
        ))
    })
}

/// A pool of connections for streams.
pub(super) struct Channels {
    endpoint: Endpoint,
    open: Mutex<Vec<Channel>>,
}

struct Channel {
    subscriber: Subscriber,
    /// One more owner than there are streams.
    streams: Arc<()>,
}

/// A stream's slot on a connection; dropping it frees the slot.
pub(super) struct StreamSlot {
    pub(super) subscriber: Subscriber,
    _count: Arc<()>,
}

impl Channels {
    /// Returns a slot on the first connection that has one, or on a new one.
    ///
    /// `durable`: the subscription outlives the stream. The emulator does not notice the end of a
    /// stream before that of its connection and keeps delivering to it, so such a stream gets its
    /// own connection there.
    pub(super) async fn slot(&self, durable: bool) -> Result<StreamSlot, ServiceError> {
        if durable && self.endpoint.url.is_some() {
            return Ok(self.connect().await?.slot());
        }
        let mut open = self.open.lock().await;
        let free = open
            .iter()
            .find(|channel| Arc::strong_count(&channel.streams) <= MAX_STREAMS_PER_CHANNEL);
        if let Some(channel) = free {
            return Ok(channel.slot());
        }
        let channel = self.connect().await?;
        let slot = channel.slot();
        open.push(channel);
        Ok(slot)
    }

    async fn connect(&self) -> Result<Channel, ServiceError> {
        let mut builder = Subscriber::builder().with_credentials(self.endpoint.credentials.clone());
        if let Some(url) = &self.endpoint.url {
            builder = builder.with_endpoint(url);
        }
        let subscriber = builder
            .build()
            .await
            .map_err(|error| ServiceError::Unavailable(error.to_string()))?;
        Ok(Channel {
            subscriber,
            streams: Arc::default(),
        })
    }
}

impl Channel {
    fn slot(&self) -> StreamSlot {
        StreamSlot {
            subscriber: self.subscriber.clone(),
            _count: Arc::clone(&self.streams),
        }
    }
}
