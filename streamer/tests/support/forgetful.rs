//! A bus whose readers can miss what another reader of it gets.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use bus::{AppName, Batch, Bus, BusError, Embedded, Reader, ReaderItem, Start};
use futures::{FutureExt, StreamExt, future, future::BoxFuture, stream};

/// The embedded bus, of which the first readings back lack the batch of one seq: as a subscription lacks what was published while it was made and set back in time.
pub struct Forgetful {
    pub inner: Arc<Embedded>,
    /// Which seq is forgotten.
    pub seq: u64,
    /// By how many readings back yet.
    pub times: AtomicU64,
}

impl Forgetful {
    fn forgets(&self, start: Start) -> bool {
        let less = |times: u64| times.checked_sub(1);
        !matches!(start, Start::Now)
            && self
                .times
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, less)
                .is_ok()
    }
}

impl Bus for Forgetful {
    fn follow<'a>(&'a self, app: &'a AppName, start: Start) -> BoxFuture<'a, Result<Reader, BusError>> {
        async move {
            let mut reader = self.inner.follow(app, start).await?;
            let (since, seq, forgets) = (reader.since(), self.seq, self.forgets(start));
            let items = stream::poll_fn(move |context| Box::pin(reader.next()).poll_unpin(context));
            let kept = items.filter(move |item| {
                let forgotten = matches!(item, Ok(ReaderItem::Delivery(delivery)) if delivery.batch.seq == seq);
                future::ready(!(forgets && forgotten))
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
