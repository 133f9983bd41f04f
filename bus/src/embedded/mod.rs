//! The bus of one machine: in one process, on disk.
//!
//! *Accepted* means synced: a batch is in its app's newest segment and `fdatasync` has returned. One thread commits for everybody, so that batches that come while
//! a sync runs share the next one. Each app has a folder of segments; each record in them carries a checksum. A killed process loses nothing accepted; a torn
//! tail is cut off when the store is opened. Retention deletes whole segments.
//!
//! The segments are a format of our own: a log-structured store writes every byte twice (journal, then table), and the best we measured reaches 0.3 to 0.6 of the
//! raw write rate where this reaches it nearly whole; `docs/performance.md` has the figures.

mod commit;
mod follow;
mod log;
mod offset;
mod record;
mod retention;
mod segment;
mod store;
mod subscription;

use std::{path::Path, sync::Arc, time::Duration};

use futures::{FutureExt, future::BoxFuture};
use tokio::sync::{Semaphore, oneshot};

use crate::{AppName, Batch, Bus, BusError, Reader, Start};
use commit::{Command, Committer};
use store::Store;

/// What the embedded bus keeps.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How long a batch is kept at most.
    pub retention: Duration,
    /// How many bytes of batches are kept in all. Each app is guaranteed an equal share: apps above theirs lose their oldest first.
    ///
    /// The files take this, a sixteenth, and one segment (4 MiB) an app above it.
    pub retention_bytes: u64,
}

impl Default for Limits {
    /// A day and 1 GB.
    fn default() -> Self {
        Self {
            retention: Duration::from_secs(24 * 3600),
            retention_bytes: 1_000_000_000,
        }
    }
}

/// Bytes that publishers may have waiting for the committer; more wait their turn. Four full batches would do; this lets a sync gather from many streams.
const MAX_WAITING_KIB: u32 = 32 * 1024;

/// The embedded engine. Its directory belongs to it alone.
///
/// Dropping it waits for what is being committed.
pub struct Embedded {
    store: Arc<Store>,
    committer: Committer,
    budget: Arc<Semaphore>,
}

impl Embedded {
    /// Opens the store in this directory, made where it does not exist, and reads how much each app holds. Blocks: call it at start.
    ///
    /// # Errors
    /// [`BusError::InUse`] where another process has it, [`BusError::Open`] where it cannot be read or written.
    pub fn open(dir: &Path, limits: Limits) -> Result<Self, BusError> {
        let store = Arc::new(Store::open(dir, limits)?);
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

    /// Hands a command to the committer and waits for its word.
    async fn commit(
        &self,
        bytes: usize,
        make: impl FnOnce(oneshot::Sender<Result<(), BusError>>) -> Command,
    ) -> Result<(), BusError> {
        let kib = u32::try_from(bytes / 1024 + 1).unwrap_or(u32::MAX).min(MAX_WAITING_KIB);
        let _permit = self.budget.acquire_many(kib).await.map_err(|_| BusError::Closed)?;
        let (done, answer) = oneshot::channel();
        self.committer.send(make(done))?;
        answer.await.map_err(|_| BusError::Closed)?
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
        let made = self.subscribe(app, name);
        async move {
            match made.await {
                Ok(_) | Err(BusError::Subscribed(_)) => Ok(()),
                Err(error) => Err(error),
            }
        }
        .boxed()
    }

    fn unsubscribe<'a>(&'a self, app: &'a AppName, name: &'a str) -> BoxFuture<'a, Result<(), BusError>> {
        std::future::ready(self.store.forget_subscription(app, name).map_err(BusError::from)).boxed()
    }

    fn apps(&self) -> BoxFuture<'_, Result<Vec<AppName>, BusError>> {
        std::future::ready(Ok(self.store.apps())).boxed()
    }

    fn subscribed(&self) -> BoxFuture<'_, Result<Vec<AppName>, BusError>> {
        std::future::ready(self.store.subscribed_apps().map_err(BusError::from)).boxed()
    }

    fn remove<'a>(&'a self, app: &'a AppName) -> BoxFuture<'a, Result<(), BusError>> {
        self.commit(0, move |done| Command::Remove { app: app.clone(), done })
            .boxed()
    }

    fn check(&self) -> BoxFuture<'_, Result<(), BusError>> {
        let failure = self
            .store
            .failure()
            .map(|reason| std::io::Error::other(reason.to_owned()));
        std::future::ready(failure.map_or(Ok(()), |failure| Err(failure.into()))).boxed()
    }
}
