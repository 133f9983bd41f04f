//! The hubs of all apps that are being read.

use std::sync::Arc;

use bus::{AppName, Bus};
use parking_lot::{Mutex, MutexGuard};
use system::{collections::HashMap, task};
use tokio::sync::{OnceCell, Semaphore, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    config::Config,
    error::ApiError,
    frame::memory::MemoryBudget,
    hub::{
        app_hub::Hub,
        cached_history::HistoryBudget,
        reader::{self, Retire},
    },
    metrics::Metrics,
};

/// Concurrent history reads; further ones wait.
const HISTORY_READS: usize = 4;

/// Memory that a history read always gets, whatever other histories hold.
const MIN_HISTORY_BYTES: usize = 1 << 20;

/// The hubs, each opened by an app's first tail and shared by all its tails.
pub(crate) struct Hubs {
    pub(crate) config: Config,
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) metrics: Metrics,
    /// Permits for history reads, which hold batches in memory.
    pub(crate) history_reads: Semaphore,
    ring_memory: MemoryBudget,
    history_memory: MemoryBudget,
    shutdown: CancellationToken,
    entries: Mutex<HashMap<AppName, Arc<Entry>>>,
    tasks: TaskTracker,
}

struct Entry {
    hub: OnceCell<Arc<Hub>>,
    tails: watch::Sender<usize>,
}

/// A tail's attachment to its hub, which stays open while this exists.
pub(crate) struct Attached {
    _counted: Counted,
    pub(crate) hub: Arc<Hub>,
}

/// Counts one tail of an entry, also while the hub is still being opened: a request that is dropped
/// meanwhile is no longer counted.
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
    pub(crate) fn new(config: Config, bus: Arc<dyn Bus>, metrics: Metrics, shutdown: CancellationToken) -> Arc<Self> {
        Arc::new(Self {
            config,
            history_reads: Semaphore::new(HISTORY_READS),
            bus,
            ring_memory: MemoryBudget::exported(metrics.ring_bytes.clone()),
            history_memory: MemoryBudget::exported(metrics.history_bytes.clone()),
            metrics,
            shutdown,
            entries: Mutex::default(),
            tasks: TaskTracker::new(),
        })
    }

    /// Returns the budget of the next history read.
    pub(crate) fn history_budget(&self) -> HistoryBudget {
        let left = self
            .config
            .total_history_bytes
            .saturating_sub(self.history_memory.total());
        HistoryBudget {
            bytes: (left / HISTORY_READS)
                .max(MIN_HISTORY_BYTES)
                .min(self.config.history_bytes),
            memory: self.history_memory.clone(),
        }
    }

    /// Attaches a tail to the app's hub, opening the hub if there is none. Every batch published
    /// after this returns reaches the hub's ring.
    ///
    /// # Errors
    /// [`ApiError::UnknownApp`] if the app does not exist, an error of the bus, or
    /// [`ApiError::ShuttingDown`].
    pub(crate) async fn attach(self: &Arc<Self>, app: &AppName) -> Result<Attached, ApiError> {
        if self.is_shutting_down() {
            return Err(ApiError::ShuttingDown);
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
            // Counted under the lock, so that `retire` sees the tail.
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
        let opened = reader::open(
            app.clone(),
            Arc::clone(&self.bus),
            self.config,
            self.metrics.clone(),
            self.ring_memory.part(),
            entry.tails.subscribe(),
        );
        let (hub, reader) = opened.await.map_err(|error| ApiError::from_bus(error, app))?;
        let (hubs, app, entry) = (Arc::clone(self), app.clone(), Arc::clone(entry));
        let retire = move |how| hubs.retire(&app, &entry, how);
        task::spawn_tracked(&self.tasks, reader.run(self.shutdown.clone(), retire));
        Ok(hub)
    }

    /// Removes a hub from the list, so that the next tail opens another. Returns false if it stays.
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

    /// Removes an entry that failed to open, unless another tail is opening it.
    fn discard(&self, app: &AppName, entry: &Arc<Entry>) {
        let mut entries = self.entries();
        let unused = |current: &Arc<Entry>| {
            Arc::ptr_eq(current, entry) && *entry.tails.borrow() == 0 && !entry.hub.initialized()
        };
        if entries.get(app).is_some_and(unused) {
            entries.remove(app);
        }
    }

    /// Returns whether new requests are refused.
    pub(crate) fn is_shutting_down(&self) -> bool {
        self.shutdown.is_cancelled()
    }

    /// Returns a tracker of tasks that [`close`](Self::close) waits for.
    pub(crate) fn tracker(&self) -> TaskTracker {
        self.tasks.clone()
    }

    /// Waits until all hubs and tracked tasks have ended. Call it after cancelling `shutdown`.
    pub(crate) async fn close(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<AppName, Arc<Entry>>> {
        self.entries.lock()
    }
}
