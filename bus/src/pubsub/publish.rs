//! Publishing, with a bound on bytes in flight.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use google_cloud_pubsub::{
    client::{BasePublisher, Publisher},
    error::PublishError,
    model::Message,
};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::failure::Failure;
use crate::{AppName, Batch, BusError};

/// Timeout of one call, longer than the library's own retries.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(8);

/// Maximum messages per request: the service's limit.
const MAX_MESSAGES: u32 = 1000;

/// Maximum bytes per request, well below the service's limit of 10 MB.
const MAX_REQUEST_BYTES: u32 = 4 << 20;

/// A topic's publisher, which is a task of the library, is dropped after this long without use.
const MAX_IDLE: Duration = Duration::from_secs(600);

/// Size of a batch's attributes, as an upper estimate.
const ATTRIBUTE_BYTES: usize = 1024;

/// Publishers by topic.
pub(super) struct Publishers {
    base: BasePublisher,
    open: Mutex<HashMap<AppName, OpenPublisher>>,
    budget: Budget,
    compression: bool,
}

/// Bound on the bytes in flight of all publishers.
#[derive(Clone)]
pub(super) struct Budget {
    free: Arc<Semaphore>,
    kib: u32,
}

impl Budget {
    /// Creates a budget of this many bytes.
    pub(super) fn new(bytes: usize) -> Self {
        let kib = u32::try_from(bytes / 1024).unwrap_or(u32::MAX).max(1);
        Self {
            free: Arc::new(Semaphore::new(kib as usize)),
            kib,
        }
    }

    /// Waits until the budget has room for `bytes`. A message larger than the budget uses all of
    /// it.
    async fn acquire(&self, bytes: usize) -> Result<SemaphorePermit<'_>, Failure> {
        let kib = u32::try_from(bytes / 1024 + 1).unwrap_or(u32::MAX).min(self.kib);
        let closed = |_| Failure::Unavailable("the bus is closed".to_owned());
        self.free.acquire_many(kib).await.map_err(closed)
    }
}

struct OpenPublisher {
    publisher: Publisher,
    last_used: Instant,
}

impl Publishers {
    pub(super) fn new(base: BasePublisher, budget: Budget, compression: bool) -> Self {
        Self {
            base,
            open: Mutex::default(),
            budget,
            compression,
        }
    }

    /// Publishes a batch to its app's topic.
    pub(super) async fn publish(&self, topic: &str, batch: &Batch) -> Result<(), Failure> {
        let _permit = self.budget.acquire(batch.data().len() + ATTRIBUTE_BYTES).await?;
        let accepted = self.publisher(&batch.metadata.app, topic).publish(self.message(batch));
        match tokio::time::timeout(PUBLISH_TIMEOUT, accepted).await {
            Ok(Ok(_id)) => Ok(()),
            Ok(Err(PublishError::Rpc(error))) => Err(Failure::from(&*error)),
            Ok(Err(error)) => Err(Failure::Unavailable(error.to_string())),
            Err(_) => Err(Failure::timeout(PUBLISH_TIMEOUT)),
        }
    }

    fn publisher(&self, app: &AppName, topic: &str) -> Publisher {
        let now = Instant::now();
        let mut open = self.open.lock();
        if let Some(recent) = open.get_mut(app) {
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
        open.insert(app.clone(), opened);
        publisher
    }

    fn message(&self, batch: &Batch) -> Message {
        let (attributes, data) = if self.compression {
            batch.compressed()
        } else {
            (batch.attributes(), batch.shared_data())
        };
        Message::new().set_data(data).set_attributes(attributes)
    }
}

/// Rejects a batch that exceeds the maximum size.
pub(super) fn check(batch: &Batch) -> Result<(), BusError> {
    if batch.fits() {
        Ok(())
    } else {
        Err(BusError::TooLarge {
            bytes: batch.data().len(),
        })
    }
}
