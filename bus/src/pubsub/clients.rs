//! Credentials, and the client library's four clients.

use std::{sync::Arc, time::Duration};

use google_cloud_auth::credentials::{Builder, Credentials, anonymous};
use google_cloud_gax::retry_policy::RetryPolicyExt;
use google_cloud_pubsub::{
    client::{BasePublisher, Subscriber, SubscriptionAdmin, TopicAdmin},
    retry_policy::RetryableErrors,
};
use tokio::sync::Mutex;

use super::{failure::Failure, settings::PubSubSettings};
use crate::BusError;

/// How long the library tries to publish before it is our turn to. Above a slow answer; below what a stopping collector waits.
const PUBLISH_LIMIT: Duration = Duration::from_secs(5);

/// Streams that one connection carries; the service's limit is about 100, and acks and lease extensions need theirs too.
const MAX_STREAMS_A_CHANNEL: usize = 60;

/// What Pub/Sub is asked for the right to.
const SCOPE: &str = "https://www.googleapis.com/auth/pubsub";

/// The clients. One of each serves the whole process, save subscribers: a connection each.
pub(super) struct Clients {
    pub(super) publisher: BasePublisher,
    pub(super) topics: TopicAdmin,
    pub(super) subscriptions: SubscriptionAdmin,
    pub(super) channels: Channels,
    /// Leases are extended by this.
    pub(super) ack_deadline: Duration,
}

impl Clients {
    /// Makes them; connects to nothing yet.
    ///
    /// # Errors
    /// [`BusError::Settings`] where the credentials cannot be used.
    pub(super) async fn new(settings: &PubSubSettings) -> Result<Self, BusError> {
        let way = Way {
            credentials: credentials(settings)?,
            endpoint: settings.emulator.as_ref().map(|host| format!("http://{host}")),
        };
        let failed = |error: google_cloud_gax::client_builder::Error| BusError::Settings(error.to_string());
        let publisher = BasePublisher::builder().with_retry_policy(RetryableErrors.with_time_limit(PUBLISH_LIMIT));
        let topics = TopicAdmin::builder().with_credentials(way.credentials.clone());
        let subscriptions = SubscriptionAdmin::builder().with_credentials(way.credentials.clone());
        let (mut publisher, mut topics, mut subscriptions) = (
            publisher.with_credentials(way.credentials.clone()),
            topics,
            subscriptions,
        );
        if let Some(endpoint) = &way.endpoint {
            publisher = publisher.with_endpoint(endpoint);
            topics = topics.with_endpoint(endpoint);
            subscriptions = subscriptions.with_endpoint(endpoint);
        }
        Ok(Self {
            publisher: publisher.build().await.map_err(failed)?,
            topics: topics.build().await.map_err(failed)?,
            subscriptions: subscriptions.build().await.map_err(failed)?,
            ack_deadline: settings.ack_deadline,
            channels: Channels {
                way,
                open: Mutex::default(),
            },
        })
    }
}

/// How a client reaches the service.
struct Way {
    credentials: Credentials,
    endpoint: Option<String>,
}

fn credentials(settings: &PubSubSettings) -> Result<Credentials, BusError> {
    if settings.emulator.is_some() {
        return Ok(anonymous::Builder::new().build());
    }
    Builder::default().with_scopes([SCOPE]).build().map_err(|error| {
        let why = if error.is_loading() {
            "cannot be read"
        } else if error.is_parsing() || error.is_unknown_type() || error.is_missing_field() {
            "are not what Google writes"
        } else {
            "cannot be used"
        };
        BusError::Settings(format!(
            "the Google credentials {why}: {error} (GOOGLE_APPLICATION_CREDENTIALS names the file of a service account; without it those of \
             `gcloud auth application-default login` or of the machine are taken)"
        ))
    })
}

/// Connections for streams: as few as carry them.
pub(super) struct Channels {
    way: Way,
    open: Mutex<Vec<Channel>>,
}

struct Channel {
    subscriber: Subscriber,
    /// As many owners besides this as there are streams.
    streams: Arc<()>,
}

/// A stream's place on a connection, while it lives.
pub(super) struct Place {
    pub(super) subscriber: Subscriber,
    _counted: Arc<()>,
}

impl Channels {
    /// A place on the first connection that has one, or on a new one.
    ///
    /// `lasting`: for a subscription that is read on when the stream has ended. The emulator does not notice a stream's end before its connection's, and hands it messages on;
    /// so there it gets a connection of its own.
    pub(super) async fn place(&self, lasting: bool) -> Result<Place, Failure> {
        if lasting && self.way.endpoint.is_some() {
            return Ok(self.connect().await?.place());
        }
        let mut open = self.open.lock().await;
        let free = open
            .iter()
            .find(|channel| Arc::strong_count(&channel.streams) <= MAX_STREAMS_A_CHANNEL);
        if let Some(channel) = free {
            return Ok(channel.place());
        }
        let channel = self.connect().await?;
        let place = channel.place();
        open.push(channel);
        Ok(place)
    }

    async fn connect(&self) -> Result<Channel, Failure> {
        let mut builder = Subscriber::builder().with_credentials(self.way.credentials.clone());
        if let Some(endpoint) = &self.way.endpoint {
            builder = builder.with_endpoint(endpoint);
        }
        let subscriber = builder
            .build()
            .await
            .map_err(|error| Failure::Away(error.to_string()))?;
        Ok(Channel {
            subscriber,
            streams: Arc::default(),
        })
    }
}

impl Channel {
    fn place(&self) -> Place {
        Place {
            subscriber: self.subscriber.clone(),
            _counted: Arc::clone(&self.streams),
        }
    }
}
