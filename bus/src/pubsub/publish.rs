//! Publishing, with a bound on bytes in flight.

use std::{sync::Arc, time::Duration};

use tokio::sync::{Semaphore, SemaphorePermit};

use super::{
    failure::Failure,
    service::{OutgoingMessage, Service},
};
use crate::{Batch, BusError};

/// Timeout of one call, longer than the library's own retries.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(8);

/// Size of a batch's attributes, as an upper estimate.
const ATTRIBUTE_BYTES: usize = 1024;

/// Publishes batches.
pub(super) struct Publisher {
    service: Arc<dyn Service>,
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

impl Publisher {
    pub(super) fn new(service: Arc<dyn Service>, budget: Budget, compression: bool) -> Self {
        Self {
            service,
            budget,
            compression,
        }
    }

    /// Publishes a batch to its app's topic.
    pub(super) async fn publish(&self, topic: &str, batch: &Batch) -> Result<(), Failure> {
        let _permit = self.budget.acquire(batch.data().len() + ATTRIBUTE_BYTES).await?;
        let accepted = self.service.publish(topic, self.message(batch));
        match tokio::time::timeout(PUBLISH_TIMEOUT, accepted).await {
            Ok(answer) => answer.map_err(Failure::from),
            Err(_) => Err(Failure::timeout(PUBLISH_TIMEOUT)),
        }
    }

    fn message(&self, batch: &Batch) -> OutgoingMessage {
        let (attributes, data) = if self.compression {
            batch.compressed()
        } else {
            (batch.attributes(), batch.shared_data())
        };
        OutgoingMessage { attributes, data }
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
