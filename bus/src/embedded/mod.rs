//! The bus of one machine: in one process, on disk.
//!
//! *Accepted* means synced: a batch is in its app's newest segment and `fdatasync` has returned.
//! One thread commits for all publishers, so that batches that arrive during a sync share the next
//! one. Each app has a directory of segments, whose records carry checksums. A crashed process
//! loses no accepted batch; a torn tail is truncated when the store is opened. If accepted batches
//! are missing then, a record in their place says so to every reader. Retention deletes
//! whole segments. The folder depends on the bus trait and the batch format only.
//!
//! The segment format is our own: a log-structured store writes every byte twice (journal, then
//! table) and reaches 0.3 to 0.6 of the raw write rate, which this format nearly reaches;
//! docs/performance.md has the figures.

mod commit;
mod follow;
mod log;
mod manifest;
mod newest;
mod offset;
mod record;
mod retention;
mod segment;
mod settings;
mod store;
mod subscription;

use std::{path::Path, sync::Arc};

use futures::{FutureExt, future::BoxFuture};
use tokio::sync::{Semaphore, oneshot};

use crate::{AppName, Batch, Bus, BusError, Reader, Start};
pub use settings::EmbeddedSettings;

use commit::{Command, Committer};
use store::Store;

/// Maximum KiB that wait for the committer; further publishers wait. Enough for one sync to gather
/// batches of many streams.
const MAX_WAITING_KIB: u32 = 32 * 1024;

/// The embedded engine, which uses its directory exclusively.
///
/// Dropping it waits for the batches that are being committed; in a simulation they are committed
/// later.
pub struct Embedded {
    store: Arc<Store>,
    committer: Committer,
    budget: Arc<Semaphore>,
}

impl Embedded {
    /// Opens the store in this directory, which is created if it does not exist. Blocks while it
    /// recovers the newest segment of each app. Call it within a tokio runtime.
    ///
    /// # Errors
    /// [`BusError::InUse`] if another process uses the directory, [`BusError::Open`] if it is not
    /// readable and writable.
    pub fn open(dir: &Path, settings: EmbeddedSettings) -> Result<Self, BusError> {
        let store = Arc::new(Store::open(dir, settings)?);
        let committer =
            Committer::start(Arc::clone(&store), MAX_WAITING_KIB as usize).map_err(|error| BusError::Open {
                dir: dir.to_owned(),
                reason: error.to_string(),
            })?;
        Ok(Self {
            store,
            committer,
            budget: Arc::new(Semaphore::new(MAX_WAITING_KIB as usize)),
        })
    }

    /// Sends a command to the committer and waits for its result.
    async fn commit(
        &self,
        bytes: usize,
        command: impl FnOnce(oneshot::Sender<Result<(), BusError>>) -> Command,
    ) -> Result<(), BusError> {
        let kib = u32::try_from(bytes / 1024 + 1).unwrap_or(u32::MAX).min(MAX_WAITING_KIB);
        let _permit = self.budget.acquire_many(kib).await.map_err(|_| BusError::Closed)?;
        let (done, result) = oneshot::channel();
        self.committer.send(command(done))?;
        result.await.map_err(|_| BusError::Closed)?
    }
}

impl Bus for Embedded {
    fn create<'a>(&'a self, app: &'a AppName) -> BoxFuture<'a, Result<(), BusError>> {
        async move {
            if self.store.log(app).is_some() {
                return Ok(());
            }
            self.commit(0, |done| Command::Create { app: app.clone(), done }).await
        }
        .boxed()
    }

    fn publish(&self, batch: Batch) -> BoxFuture<'_, Result<(), BusError>> {
        async move {
            if !batch.fits() {
                return Err(BusError::TooLarge {
                    bytes: batch.data().len(),
                });
            }
            let bytes = batch.data().len();
            self.commit(bytes, |done| Command::Publish { batch, done }).await
        }
        .boxed()
    }

    fn follow<'a>(&'a self, app: &'a AppName, start: Start) -> BoxFuture<'a, Result<Reader, BusError>> {
        async move {
            let log = self.store.log(app).ok_or_else(|| BusError::UnknownApp(app.clone()))?;
            Ok(follow::follow(log, start))
        }
        .boxed()
    }

    fn subscribe<'a>(&'a self, app: &'a AppName, name: &'a str) -> BoxFuture<'a, Result<Reader, BusError>> {
        async move {
            let log = self.store.log(app).ok_or_else(|| BusError::UnknownApp(app.clone()))?;
            Ok(subscription::read(self.store.subscription(&log, name)?))
        }
        .boxed()
    }

    fn ensure_subscription<'a>(&'a self, app: &'a AppName, name: &'a str) -> BoxFuture<'a, Result<(), BusError>> {
        let opened = self.subscribe(app, name);
        async move {
            match opened.await {
                Ok(_) | Err(BusError::SubscriptionInUse(_)) => Ok(()),
                Err(error) => Err(error),
            }
        }
        .boxed()
    }

    fn unsubscribe<'a>(&'a self, app: &'a AppName, name: &'a str) -> BoxFuture<'a, Result<(), BusError>> {
        std::future::ready(self.store.delete_subscription(app, name).map_err(BusError::from)).boxed()
    }

    fn apps(&self) -> BoxFuture<'_, Result<Vec<AppName>, BusError>> {
        std::future::ready(Ok(self.store.apps())).boxed()
    }

    fn apps_with_subscriptions(&self) -> BoxFuture<'_, Result<Vec<AppName>, BusError>> {
        std::future::ready(self.store.apps_with_subscriptions().map_err(BusError::from)).boxed()
    }

    fn remove<'a>(&'a self, app: &'a AppName) -> BoxFuture<'a, Result<(), BusError>> {
        self.commit(0, move |done| Command::Remove { app: app.clone(), done })
            .boxed()
    }

    fn check(&self) -> BoxFuture<'_, Result<(), BusError>> {
        let failure = self.store.failure().map(std::io::Error::other);
        std::future::ready(failure.map_or(Ok(()), |failure| Err(failure.into()))).boxed()
    }
}
