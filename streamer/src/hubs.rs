//! Which apps are being read.

use std::{collections::HashMap, sync::Arc};

use bus::{AppName, Bus};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{OnceCell, Semaphore, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    access::Access,
    charge::Kept,
    config::Config,
    error::ApiError,
    history::Room,
    hub::{self, Hub, Retire},
    limits::Tails,
    metrics::Metrics,
};

/// How many read histories at once; more wait their turn.
const READ_BACKS: usize = 4;

/// What a reading of history may hold however much others do.
const LEAST_HISTORY_BYTES: usize = 1 << 20;

/// The hubs, opened by the first tail of an app, shared by all.
pub(crate) struct Hubs {
    pub(crate) config: Config,
    /// Who may do what.
    pub(crate) access: Access,
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) metrics: Metrics,
    /// Turns to read history: each holds batches in memory.
    pub(crate) read_backs: Semaphore,
    /// Who is let in.
    pub(crate) tails: Arc<Tails>,
    /// What all rings keep.
    kept: Kept,
    /// What is held of history.
    histories: Kept,
    shutdown: CancellationToken,
    entries: Mutex<HashMap<AppName, Arc<Entry>>>,
    tasks: TaskTracker,
}

struct Entry {
    hub: OnceCell<Arc<Hub>>,
    tails: watch::Sender<usize>,
}

/// A tail's hold on its hub: while it lives, so does the hub.
pub(crate) struct Attached {
    _counted: Counted,
    /// The hub.
    pub(crate) hub: Arc<Hub>,
}

/// One of an entry's tails, also while its hub is still being opened: a request that goes away meanwhile leaves no trace.
struct Counted {
    entry: Arc<Entry>,
}

impl Counted {
    fn new(entry: &Arc<Entry>) -> Self {
        entry.tails.send_modify(|count| *count += 1);
        Self {
            entry: Arc::clone(entry),
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.entry.tails.send_modify(|count| *count -= 1);
    }
}

impl Hubs {
    pub(crate) fn new(
        config: Config,
        access: Access,
        bus: Arc<dyn Bus>,
        metrics: Metrics,
        shutdown: CancellationToken,
    ) -> Arc<Self> {
        Arc::new(Self {
            config,
            access,
            read_backs: Semaphore::new(READ_BACKS),
            bus,
            kept: Kept::shown(metrics.ring_bytes.clone()),
            histories: Kept::shown(metrics.history_bytes.clone()),
            metrics,
            tails: Arc::default(),
            shutdown,
            entries: Mutex::default(),
            tasks: TaskTracker::new(),
        })
    }

    /// What a reading of history may hold, and where that counts.
    pub(crate) fn room(&self) -> Room {
        let left = self.config.histories_bytes.saturating_sub(self.histories.all());
        Room {
            bytes: (left / READ_BACKS)
                .max(LEAST_HISTORY_BYTES)
                .min(self.config.history_bytes),
            kept: self.histories.clone(),
        }
    }

    /// Joins the app's hub, opening it where there is none. When this returns, what the bus accepts from here on reaches the hub's ring.
    ///
    /// # Errors
    /// [`ApiError::UnknownApp`], or the bus's failure; [`ApiError::Stopping`] once nothing new is begun.
    pub(crate) async fn attach(self: &Arc<Self>, app: &AppName) -> Result<Attached, ApiError> {
        if self.is_stopping() {
            return Err(ApiError::Stopping);
        }
        let (entry, counted) = {
            let mut entries = self.entries();
            let new = || {
                Arc::new(Entry {
                    hub: OnceCell::new(),
                    tails: watch::Sender::new(0),
                })
            };
            let entry = Arc::clone(entries.entry(app.clone()).or_insert_with(new));
            // Under the lock, so that a hub about to close sees it.
            let counted = Counted::new(&entry);
            (entry, counted)
        };
        match entry.hub.get_or_try_init(|| self.open(app, &entry)).await {
            Ok(hub) => Ok(Attached {
                _counted: counted,
                hub: Arc::clone(hub),
            }),
            Err(error) => {
                drop(counted);
                self.discard(app, &entry);
                Err(error)
            }
        }
    }

    async fn open(self: &Arc<Self>, app: &AppName, entry: &Arc<Entry>) -> Result<Arc<Hub>, ApiError> {
        let opened = hub::open(
            app.clone(),
            Arc::clone(&self.bus),
            self.config,
            self.metrics.clone(),
            self.kept.part(),
            entry.tails.subscribe(),
        );
        let (hub, reading) = opened.await.map_err(|error| ApiError::from_bus(error, app))?;
        let (hubs, app, entry) = (Arc::clone(self), app.clone(), Arc::clone(entry));
        let retire = move |how| hubs.retire(&app, &entry, how);
        self.tasks.spawn(reading.run(self.shutdown.clone(), retire));
        Ok(hub)
    }

    /// Takes a hub out of the list; a tail that comes opens another. False where it stays.
    fn retire(&self, app: &AppName, entry: &Arc<Entry>, how: Retire) -> bool {
        let mut entries = self.entries();
        if how == Retire::IfIdle && *entry.tails.borrow() > 0 {
            return false;
        }
        if entries.get(app).is_some_and(|current| Arc::ptr_eq(current, entry)) {
            entries.remove(app);
        }
        true
    }

    /// Takes out an entry that never opened, unless somebody else tries just now.
    fn discard(&self, app: &AppName, entry: &Arc<Entry>) {
        let mut entries = self.entries();
        let unused = |current: &Arc<Entry>| {
            Arc::ptr_eq(current, entry) && *entry.tails.borrow() == 0 && !entry.hub.initialized()
        };
        if entries.get(app).is_some_and(unused) {
            entries.remove(app);
        }
    }

    /// Whether nothing new is begun.
    pub(crate) fn is_stopping(&self) -> bool {
        self.shutdown.is_cancelled()
    }

    /// Keeps [`close`](Self::close) waiting for what it tracks: tails that no listener waits for.
    pub(crate) fn tracker(&self) -> TaskTracker {
        self.tasks.clone()
    }

    /// Waits until all hubs, and all that was tracked, are done. After `shutdown` was cancelled.
    pub(crate) async fn close(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<AppName, Arc<Entry>>> {
        self.entries.lock()
    }
}
