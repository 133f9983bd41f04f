//! The client library's publishers: one per topic.

use std::time::Duration;

use google_cloud_pubsub::{
    client::{BasePublisher, Publisher},
    error::PublishError,
    model::Message,
};
use parking_lot::Mutex;
use system::{
    clock::{Instant, steady},
    collections::HashMap,
};

use super::super::service::{OutgoingMessage, ServiceError};

/// Maximum messages per request: the service's limit.
const MAX_MESSAGES: u32 = 1000;

/// Maximum bytes per request, well below the service's limit of 10 MB.
const MAX_REQUEST_BYTES: u32 = 4 << 20;

/// A topic's publisher, which is a task of the library, is dropped after this long without use.
const MAX_IDLE: Duration = Duration::from_secs(600);

/// Publishers by topic.
pub(super) struct Publishers {
    base: BasePublisher,
    open: Mutex<HashMap<String, OpenPublisher>>,
}

struct OpenPublisher {
    publisher: Publisher,
    last_used: Instant,
}

impl Publishers {
    pub(super) fn new(base: BasePublisher) -> Self {
        Self {
            base,
            open: Mutex::default(),
        }
    }

    /// Publishes a message.
    pub(super) async fn publish(&self, topic: &str, message: OutgoingMessage) -> Result<(), ServiceError> {
        let OutgoingMessage { attributes, data } = message;
        let message = Message::new().set_data(data).set_attributes(attributes);
        match self.publisher(topic).publish(message).await {
            Ok(_id) => Ok(()),
            Err(PublishError::Rpc(error)) => Err(ServiceError::from(&*error)),
            Err(error) => Err(ServiceError::Unavailable(error.to_string())),
        }
    }

    fn publisher(&self, topic: &str) -> Publisher {
        let now = steady();
        let mut open = self.open.lock();
        if let Some(recent) = open.get_mut(topic) {
            recent.last_used = now;
            return recent.publisher.clone();
        }
        open.retain(|_, recent| now.duration_since(recent.last_used) < MAX_IDLE);
        let publisher = self
            .base
            .publisher(topic)
            .set_delay_threshold(Duration::ZERO)
            .set_message_count_threshold(MAX_MESSAGES)
            .set_byte_threshold(MAX_REQUEST_BYTES)
            .build();
        let opened = OpenPublisher {
            publisher: publisher.clone(),
            last_used: now,
        };
        open.insert(topic.to_owned(), opened);
        publisher
    }
}
