//! A bus whose history reads can miss a batch.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use bus::{AppName, Batch, Bus, BusError, Embedded, Reader, ReaderItem, Start};
use futures::{FutureExt, StreamExt, future, future::BoxFuture, stream};

/// The embedded bus, except that the first history reads lack one batch, as a Pub/Sub subscription
/// can lack what is published while it is created and sought back in time.
pub struct LossyBus {
    pub inner: Arc<Embedded>,
    /// Sequence number of the missing batch.
    pub seq: u64,
    /// Number of history reads that still lack it.
    pub times: AtomicU64,
}

impl LossyBus {
    fn drops_batch(&self, start: Start) -> bool {
        let decrement = |times: u64| times.checked_sub(1);
        !matches!(start, Start::Now)
            && self
                .times
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, decrement)
                .is_ok()
    }
}

impl Bus for LossyBus {
    fn follow<'a>(&'a self, app: &'a AppName, start: Start) -> BoxFuture<'a, Result<Reader, BusError>> {
        async move {
            let mut reader = self.inner.follow(app, start).await?;
            let (since, seq, drops_batch) = (reader.since(), self.seq, self.drops_batch(start));
            let items = stream::poll_fn(move |context| Box::pin(reader.next()).poll_unpin(context));
            let kept = items.filter(move |item| {
                let is_target = matches!(item, Ok(ReaderItem::Delivery(delivery)) if delivery.batch.seq == seq);
                future::ready(!(drops_batch && is_target))
            });
            Ok(Reader::new(kept.boxed(), since, false))
        }
        .boxed()
    }

    fn create<'a>(&'a self, app: &'a AppName) -> BoxFuture<'a, Result<(), BusError>> {
        self.inner.create(app)
    }

    fn publish(&self, batch: Batch) -> BoxFuture<'_, Result<(), BusError>> {
        self.inner.publish(batch)
    }

    fn subscribe<'a>(&'a self, app: &'a AppName, name: &'a str) -> BoxFuture<'a, Result<Reader, BusError>> {
        self.inner.subscribe(app, name)
    }

    fn ensure_subscription<'a>(&'a self, app: &'a AppName, name: &'a str) -> BoxFuture<'a, Result<(), BusError>> {
        self.inner.ensure_subscription(app, name)
    }

    fn unsubscribe<'a>(&'a self, app: &'a AppName, name: &'a str) -> BoxFuture<'a, Result<(), BusError>> {
        self.inner.unsubscribe(app, name)
    }

    fn apps(&self) -> BoxFuture<'_, Result<Vec<AppName>, BusError>> {
        self.inner.apps()
    }

    fn apps_with_subscriptions(&self) -> BoxFuture<'_, Result<Vec<AppName>, BusError>> {
        self.inner.apps_with_subscriptions()
    }

    fn remove<'a>(&'a self, app: &'a AppName) -> BoxFuture<'a, Result<(), BusError>> {
        self.inner.remove(app)
    }

    fn check(&self) -> BoxFuture<'_, Result<(), BusError>> {
        self.inner.check()
    }
}
