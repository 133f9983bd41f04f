//! The Pub/Sub service as the engine uses it: Google's, or a model of it in a simulation.
//!
//! Below this interface is only what the client library does by itself: it batches publishes,
//! retries them for a few seconds, extends leases, limits unacknowledged messages and reopens
//! streams. Rate limits, timeouts, classification of errors, and all handling of subscriptions are
//! above it.

use std::{fmt, time::Duration};

use bytes::Bytes;
use futures::future::BoxFuture;
use google_cloud_pubsub::subscriber::handler::Handler;

pub use super::pull::PullSender;
use crate::{Ack, PublishTime};

/// Attributes of a received message, in the client library's type, so that they are not copied.
#[allow(
    clippy::disallowed_types,
    reason = "only looked up, never iterated in an order that matters"
)]
pub type ReceivedAttributes = std::collections::HashMap<String, String>;

/// Topics and subscriptions. Names are full: `projects/P/topics/T`.
///
/// No call has a timeout. A call that is cancelled or fails may have been executed.
pub trait Service: Send + Sync + 'static {
    /// Publishes a message. Returns when the service has stored it.
    fn publish<'a>(&'a self, topic: &'a str, message: OutgoingMessage) -> BoxFuture<'a, Result<(), ServiceError>>;

    /// Runs one stream of a subscription: sends the messages that it receives to `out`, until the
    /// stream ends or the receiver is dropped, and returns the reason.
    ///
    /// Dropping the future ends the stream and nacks its unacknowledged messages.
    fn pull<'a>(&'a self, subscription: &'a str, options: PullOptions, out: PullSender) -> BoxFuture<'a, ServiceError>;

    /// Creates a topic that stores messages for `retention`.
    fn create_topic<'a>(&'a self, topic: &'a str, retention: Duration) -> BoxFuture<'a, Result<(), ServiceError>>;

    /// Deletes a topic. Its subscriptions remain, without a topic.
    fn delete_topic<'a>(&'a self, topic: &'a str) -> BoxFuture<'a, Result<(), ServiceError>>;

    /// Checks that a topic exists.
    fn get_topic<'a>(&'a self, topic: &'a str) -> BoxFuture<'a, Result<(), ServiceError>>;

    /// Lists a project's topics: the page after `token`, which is empty for the first one.
    fn list_topics<'a>(&'a self, project: &'a str, token: String) -> BoxFuture<'a, Result<Page, ServiceError>>;

    /// Creates a subscription, which receives the messages published from then on.
    fn create_subscription<'a>(&'a self, subscription: NewSubscription<'a>) -> BoxFuture<'a, Result<(), ServiceError>>;

    /// Deletes a subscription.
    fn delete_subscription<'a>(&'a self, subscription: &'a str) -> BoxFuture<'a, Result<(), ServiceError>>;

    /// Returns whether an existing subscription is attached to its topic.
    fn is_attached<'a>(&'a self, subscription: &'a str) -> BoxFuture<'a, Result<bool, ServiceError>>;

    /// Lists a project's subscriptions: the page after `token`, which is empty for the first one.
    fn list_subscriptions<'a>(&'a self, project: &'a str, token: String) -> BoxFuture<'a, Result<Page, ServiceError>>;

    /// Marks the messages that were published at or after `to` as unacknowledged, and all others as
    /// acknowledged. May take a minute to become effective.
    fn seek<'a>(&'a self, subscription: &'a str, to: PublishTime) -> BoxFuture<'a, Result<(), ServiceError>>;
}

/// A message to publish.
#[derive(Clone, Debug)]
pub struct OutgoingMessage {
    /// Names and values.
    pub attributes: Vec<(&'static str, String)>,
    /// The data.
    pub data: Bytes,
}

/// A message of a stream.
#[derive(Debug)]
pub struct ReceivedMessage {
    /// Names and values.
    pub attributes: ReceivedAttributes,
    /// The data.
    pub data: Bytes,
    /// When the service accepted the message.
    pub published: Option<PublishTime>,
    /// Acknowledges the message. Dropping it is a nack.
    pub ack: MessageAck,
}

/// Acknowledges a message, without a box for the client library's handler.
#[derive(Debug)]
pub struct MessageAck(Repr);

#[derive(Debug)]
enum Repr {
    Google(Handler),
    Other(Ack),
}

/// How a stream is run.
#[derive(Clone, Copy, Debug)]
pub struct PullOptions {
    /// Whether the subscription outlives the stream.
    pub durable: bool,
    /// Maximum unacknowledged messages; then the stream pauses.
    pub max_outstanding_messages: i64,
    /// Maximum bytes of unacknowledged messages; then the stream pauses.
    pub max_outstanding_bytes: i64,
    /// Time by which the lease of a message is extended at a time.
    pub lease_extension: Duration,
    /// Maximum time for which the lease of a message is extended.
    pub max_lease: Duration,
}

/// A page of full names.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// The names.
    pub names: Vec<String>,
    /// Token of the next page, or empty.
    pub next: String,
}

/// A subscription to create.
#[derive(Clone, Copy, Debug)]
pub struct NewSubscription<'a> {
    /// Its full name.
    pub name: &'a str,
    /// The full name of its topic.
    pub topic: &'a str,
    /// Time after which an unacknowledged message is redelivered.
    pub ack_deadline: Duration,
    /// How long it keeps unacknowledged messages.
    pub retention: Duration,
    /// Time without use after which it is deleted. `None`: never.
    pub expiration: Option<Duration>,
    /// Delays of redeliveries. `None`: at once.
    pub retry_delays: Option<RetryDelays>,
}

/// Delays of redeliveries, which grow with each of them.
#[derive(Clone, Copy, Debug)]
pub struct RetryDelays {
    /// The first delay.
    pub min: Duration,
    /// The longest delay.
    pub max: Duration,
}

/// Errors of the service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceError {
    /// The topic or subscription does not exist.
    NotFound,
    /// The topic or subscription already exists.
    AlreadyExists,
    /// A quota is exhausted.
    ResourceExhausted {
        /// Google's name of the reason, if given.
        reason: Option<String>,
        /// The message.
        message: String,
    },
    /// No usable credentials were found.
    NoCredentials(String),
    /// The credentials lack a permission.
    PermissionDenied(String),
    /// The request is invalid.
    Invalid(String),
    /// Any other error, and no answer.
    Unavailable(String),
}

impl MessageAck {
    /// Creates an acknowledgement from that of another service than Google's.
    pub fn new(ack: Ack) -> Self {
        Self(Repr::Other(ack))
    }

    /// Acknowledges the message.
    pub fn ack(self) {
        match self.0 {
            Repr::Google(handler) => handler.ack(),
            Repr::Other(ack) => ack.ack(),
        }
    }

    /// Asks for redelivery.
    pub fn nack(self) {
        match self.0 {
            Repr::Google(handler) => handler.nack(),
            Repr::Other(ack) => ack.nack(),
        }
    }
}

impl From<Handler> for MessageAck {
    fn from(handler: Handler) -> Self {
        Self(Repr::Google(handler))
    }
}

impl fmt::Display for ServiceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound => f.write_str("not found"),
            Self::AlreadyExists => f.write_str("already exists"),
            Self::ResourceExhausted { message, .. } => f.write_str(message),
            Self::NoCredentials(text)
            | Self::PermissionDenied(text)
            | Self::Invalid(text)
            | Self::Unavailable(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for ServiceError {}
