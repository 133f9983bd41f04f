//! Hands batches to topics, with a bound on what is on its way.

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

/// How long one call may take, all told: above the library's own limit, and the end of a call that hangs.
const PUBLISH_WAIT: Duration = Duration::from_secs(8);

/// Messages of one request: the most there is. They are gathered for a millisecond, no longer: a stream has one on its way, and waits for it.
const MAX_MESSAGES: u32 = 1000;

/// Bytes of one request, well below the 10 MB there may be: then the library sends.
const MAX_REQUEST_BYTES: u32 = 4 << 20;

/// A topic's sender that was not used for so long is let go; each is a task of the library's.
const IDLE: Duration = Duration::from_secs(600);

/// What a message takes beside its data, at the most that a batch's attributes come to.
const ATTRIBUTE_BYTES: usize = 1024;

/// The topics' senders.
pub(super) struct Publishers {
    base: BasePublisher,
    open: Mutex<HashMap<AppName, Sender>>,
    budget: Budget,
    compression: bool,
}

/// What all publishers together may have on their way.
#[derive(Clone)]
pub(super) struct Budget {
    free: Arc<Semaphore>,
    kib: u32,
}

impl Budget {
    /// So many bytes.
    pub(super) fn new(bytes: usize) -> Self {
        let kib = u32::try_from(bytes / 1024).unwrap_or(u32::MAX).max(1);
        Self {
            free: Arc::new(Semaphore::new(kib as usize)),
            kib,
        }
    }

    /// Waits until so many bytes have room. What is larger than all of it has it alone.
    async fn take(&self, bytes: usize) -> Result<SemaphorePermit<'_>, Failure> {
        let kib = u32::try_from(bytes / 1024 + 1).unwrap_or(u32::MAX).min(self.kib);
        let closed = |_| Failure::Away("the bus is closed".to_owned());
        self.free.acquire_many(kib).await.map_err(closed)
    }
}

struct Sender {
    publisher: Publisher,
    used: Instant,
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

    /// Publishes a batch to this topic, which is the app's.
    pub(super) async fn publish(&self, topic: &str, batch: &Batch) -> Result<(), Failure> {
        let _taken = self.budget.take(batch.data().len() + ATTRIBUTE_BYTES).await?;
        let accepted = self.sender(&batch.metadata.app, topic).publish(self.message(batch));
        match tokio::time::timeout(PUBLISH_WAIT, accepted).await {
            Ok(Ok(_id)) => Ok(()),
            Ok(Err(PublishError::Rpc(error))) => Err(Failure::from(&*error)),
            Ok(Err(error)) => Err(Failure::Away(error.to_string())),
            Err(_) => Err(Failure::silent(PUBLISH_WAIT)),
        }
    }

    fn sender(&self, app: &AppName, topic: &str) -> Publisher {
        let now = Instant::now();
        let mut open = self.open.lock();
        if let Some(sender) = open.get_mut(app) {
            sender.used = now;
            return sender.publisher.clone();
        }
        open.retain(|_, sender| now.duration_since(sender.used) < IDLE);
        let publisher = self
            .base
            .publisher(topic)
            .set_delay_threshold(Duration::ZERO)
            .set_message_count_threshold(MAX_MESSAGES)
            .set_byte_threshold(MAX_REQUEST_BYTES)
            .build();
        let sender = Sender {
            publisher: publisher.clone(),
            used: now,
        };
        open.insert(app.clone(), sender);
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

/// What the service never takes is not sent to it.
pub(super) fn check(batch: &Batch) -> Result<(), BusError> {
    if batch.fits() {
        Ok(())
    } else {
        Err(BusError::TooLarge {
            bytes: batch.data().len(),
        })
    }
}
