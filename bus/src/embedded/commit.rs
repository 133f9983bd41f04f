//! The only writer: gathers batches of all publishers and syncs them together.

use std::{io, sync::Arc, time::Duration};

use system::task::{self, Dedicated};
use tokio::sync::{mpsc, oneshot};

use super::{log::Log, store::Store};
use crate::{AppName, Batch, BusError, PublishTime};

/// Maximum bytes per sync; the rest waits for the next one.
const MAX_COMMIT_BYTES: usize = 2 << 20;

/// Retention runs after this fraction of the byte limit was written.
const RETENTION_FRACTION: u64 = 16;

/// Interval of retention.
const RETENTION_INTERVAL: Duration = Duration::from_secs(5);

type Done = oneshot::Sender<Result<(), BusError>>;

/// Commands of the committer.
pub(super) enum Command {
    /// Create an app's topic.
    Create { app: AppName, done: Done },
    /// Store a batch.
    Publish { batch: Batch, done: Done },
    /// Delete an app's topic.
    Remove { app: AppName, done: Done },
    /// Run retention.
    Retain,
}

/// Handle of the committer's thread. Dropping it commits the pending commands and ends the thread.
pub(super) struct Committer {
    /// Dropped before the thread, which ends when no sender is left.
    commands: mpsc::Sender<Command>,
    _thread: Dedicated,
}

impl Committer {
    /// Starts the thread. `capacity` is at least the number of commands that the publishers' budget
    /// admits, so the queue never fills up.
    pub(super) fn start(store: Arc<Store>, capacity: usize) -> io::Result<Self> {
        let (commands, queue) = mpsc::channel(capacity);
        let thread = Dedicated::start("bus-commit", Run::new(store, queue).run())?;
        drop(task::spawn(request_retention(commands.downgrade())));
        Ok(Self {
            commands,
            _thread: thread,
        })
    }

    /// Sends a command.
    ///
    /// # Errors
    /// [`BusError::Closed`] if the thread has ended.
    pub(super) fn send(&self, command: Command) -> Result<(), BusError> {
        self.commands.try_send(command).map_err(|_| BusError::Closed)
    }
}

/// Requests retention at an interval, until the committer ends. It is a task of the runtime because
/// a timer on the committer's thread would panic if the runtime ended first.
async fn request_retention(commands: mpsc::WeakSender<Command>) {
    loop {
        tokio::time::sleep(RETENTION_INTERVAL).await;
        let Some(commands) = commands.upgrade() else { return };
        // Fails only if the thread has ended: the queue never fills up.
        let _ = commands.try_send(Command::Retain);
    }
}

struct Run {
    store: Arc<Store>,
    queue: mpsc::Receiver<Command>,
    pending: Vec<Pending>,
    /// Why a command of this round failed.
    failure: Option<String>,
    retention_requested: bool,
    /// Bytes written since the last retention.
    committed_bytes: u64,
}

/// The batches of one round for one app.
struct Pending {
    log: Arc<Log>,
    batches: Vec<(u64, Batch)>,
    done: Vec<Done>,
}

impl Run {
    fn new(store: Arc<Store>, queue: mpsc::Receiver<Command>) -> Self {
        Self {
            store,
            queue,
            pending: Vec::new(),
            failure: None,
            retention_requested: false,
            committed_bytes: 0,
        }
    }

    async fn run(mut self) {
        while let Some(first) = self.queue.recv().await {
            self.round(first).await;
            self.enforce_retention().await;
        }
    }

    /// Processes a command and those queued after it, up to the maximum size of a sync.
    async fn round(&mut self, first: Command) {
        let mut bytes = 0;
        let mut next = Some(first);
        while let Some(command) = next {
            bytes += self.process(command).await;
            let more = bytes < MAX_COMMIT_BYTES;
            next = if more { self.queue.try_recv().ok() } else { None };
        }
        self.committed_bytes += bytes as u64;
        self.commit().await;
    }

    /// Processes a command and returns the bytes that it adds to the sync. A removal commits the
    /// gathered batches first, which preserves the order.
    async fn process(&mut self, command: Command) -> usize {
        match command {
            Command::Publish { batch, done } => return self.gather(batch, done).await,
            Command::Create { app, done } => {
                let created = self.store.open_log(&app).await.map(drop);
                self.record(&created);
                answer(done, created.map_err(BusError::from));
            }
            Command::Remove { app, done } => {
                self.commit().await;
                answer(done, self.store.remove_log(&app).await.map_err(BusError::from));
            }
            Command::Retain => self.retention_requested = true,
        }
        0
    }

    async fn gather(&mut self, batch: Batch, done: Done) -> usize {
        let log = match self.store.open_log(&batch.metadata.app).await {
            Ok(log) => log,
            Err(error) => {
                self.failure = Some(error.to_string());
                answer(done, Err(error.into()));
                return 0;
            }
        };
        let index = self.pending.iter().position(|pending| Arc::ptr_eq(&pending.log, &log));
        let index = index.unwrap_or_else(|| {
            self.pending.push(Pending {
                log,
                batches: Vec::new(),
                done: Vec::new(),
            });
            self.pending.len() - 1
        });
        let pending = &mut self.pending[index];
        // Keys are unique times: if the clock stands still or steps back, they advance by 1 µs.
        let previous = pending
            .batches
            .last()
            .map_or_else(|| pending.log.last_key(), |(key, _)| *key);
        let key = PublishTime::now().0.max(previous + 1);
        let bytes = batch.data().len();
        pending.batches.push((key, batch));
        pending.done.push(done);
        bytes
    }

    fn record<T>(&mut self, result: &io::Result<T>) {
        if let Err(error) = result {
            self.failure = Some(error.to_string());
        }
    }

    /// Writes and syncs the gathered batches app by app, then wakes readers and publishers.
    async fn commit(&mut self) {
        let is_empty = self.pending.is_empty();
        self.write_pending().await;
        match self.failure.take() {
            Some(reason) => self.store.set_failure(Some(reason)),
            None if !is_empty => self.store.set_failure(None),
            None => {}
        }
    }

    async fn write_pending(&mut self) {
        let mut written = Vec::with_capacity(self.pending.len());
        for pending in self.pending.drain(..) {
            let batches: Vec<_> = pending.batches.iter().map(|(key, batch)| (*key, batch)).collect();
            match pending.log.append(&batches).await {
                Ok(segment) => written.push((pending, segment)),
                Err(error) => {
                    self.failure = Some(error.to_string());
                    pending.fail(&error.to_string());
                }
            }
        }
        for (pending, segment) in written {
            match task::io(|| segment.sync()).await {
                Ok(()) => pending.complete(),
                Err(error) => {
                    self.failure = Some(error.to_string());
                    task::io(|| pending.log.abandon(&segment)).await;
                    pending.fail(&error.to_string());
                }
            }
        }
    }

    async fn enforce_retention(&mut self) {
        let has_grown = self.committed_bytes > self.store.settings.retention_bytes / RETENTION_FRACTION;
        if !has_grown && !self.retention_requested {
            return;
        }
        if self.retention_requested && self.store.failure().is_some() {
            let store = Arc::clone(&self.store);
            // Nothing may be published for a while.
            let probed = task::io(|| store.probe()).await;
            self.store.set_failure(probed.err().map(|error| error.to_string()));
        }
        self.retention_requested = false;
        self.committed_bytes = 0;
        if let Err(error) = self.store.enforce_retention(PublishTime::now()).await {
            tracing::warn!(%error, "retention failed");
        }
    }
}

impl Pending {
    fn complete(self) {
        self.log.publish(self.batches);
        self.done.into_iter().for_each(|done| answer(done, Ok(())));
    }

    fn fail(self, reason: &str) {
        for done in self.done {
            answer(done, Err(BusError::Store(io::Error::other(reason.to_owned()))));
        }
    }
}

/// Sends a result to a publisher that may have stopped waiting.
fn answer(done: Done, result: Result<(), BusError>) {
    let _ = done.send(result);
}
