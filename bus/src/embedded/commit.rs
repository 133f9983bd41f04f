//! The only writer: gathers batches of all publishers and syncs them together.

use std::{
    io,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use super::{log::Log, store::Store};
use crate::{AppName, Batch, BusError, PublishTime};

/// Maximum bytes per sync; the rest waits for the next one.
const MAX_COMMIT_BYTES: usize = 2 << 20;

/// Retention runs after this fraction of the byte limit was written.
const RETENTION_FRACTION: u64 = 16;

/// Interval of retention without writes.
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
    /// Commit the previous commands, then end.
    Stop,
}

/// Handle of the committer's thread. Dropping it commits the pending commands and ends the thread.
pub(super) struct Committer {
    commands: SyncSender<Command>,
    thread: Option<JoinHandle<()>>,
}

impl Committer {
    /// Starts the thread. `capacity` is at least the number of commands that the publishers' budget
    /// admits, so the queue never fills up.
    pub(super) fn start(store: Arc<Store>, capacity: usize) -> io::Result<Self> {
        let (commands, queue) = sync_channel(capacity);
        let run = move || Run::new(store, queue).run();
        let thread = std::thread::Builder::new().name("bus-commit".to_owned()).spawn(run)?;
        Ok(Self {
            commands,
            thread: Some(thread),
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

impl Drop for Committer {
    fn drop(&mut self) {
        // Fails only if the thread has panicked.
        let _ = self.commands.send(Command::Stop);
        if let Some(thread) = self.thread.take() {
            // The panic hook has already reported a panic.
            let _ = thread.join();
        }
    }
}

struct Run {
    store: Arc<Store>,
    queue: Receiver<Command>,
    pending: Vec<Pending>,
    stopped: bool,
    last_retention: Instant,
    /// Bytes written since then.
    committed_bytes: u64,
}

/// The batches of one round for one app.
struct Pending {
    log: Arc<Log>,
    batches: Vec<(u64, Batch)>,
    done: Vec<Done>,
}

impl Run {
    fn new(store: Arc<Store>, queue: Receiver<Command>) -> Self {
        let pending = Vec::new();
        Self {
            store,
            queue,
            pending,
            stopped: false,
            last_retention: Instant::now(),
            committed_bytes: 0,
        }
    }

    fn run(mut self) {
        while !self.stopped {
            match self.queue.recv_timeout(RETENTION_INTERVAL) {
                Ok(first) => self.round(first),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.enforce_retention();
        }
    }

    /// Processes a command and those queued after it, up to the maximum size of a sync.
    fn round(&mut self, first: Command) {
        let mut bytes = 0;
        let mut next = Some(first);
        while let Some(command) = next {
            bytes += self.process(command);
            let more = bytes < MAX_COMMIT_BYTES && !self.stopped;
            next = if more { self.queue.try_recv().ok() } else { None };
        }
        self.committed_bytes += bytes as u64;
        self.commit();
    }

    /// Processes a command and returns the bytes that it adds to the sync. A removal commits the
    /// gathered batches first, which preserves the order.
    fn process(&mut self, command: Command) -> usize {
        match command {
            Command::Publish { batch, done } => return self.gather(batch, done),
            Command::Create { app, done } => {
                answer(done, self.store.open_log(&app).map(drop).map_err(BusError::from));
            }
            Command::Remove { app, done } => {
                self.commit();
                answer(done, self.store.remove_log(&app).map_err(BusError::from));
            }
            Command::Stop => self.stopped = true,
        }
        0
    }

    fn gather(&mut self, batch: Batch, done: Done) -> usize {
        let log = match self.store.open_log(&batch.metadata.app) {
            Ok(log) => log,
            Err(error) => {
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
            .map_or_else(|| *pending.log.newest.borrow(), |(key, _)| *key);
        let key = PublishTime::now().0.max(previous + 1);
        let bytes = batch.data().len();
        pending.batches.push((key, batch));
        pending.done.push(done);
        bytes
    }

    /// Writes and syncs the gathered batches app by app, then wakes readers and publishers.
    fn commit(&mut self) {
        let mut written = Vec::with_capacity(self.pending.len());
        for pending in self.pending.drain(..) {
            if let Some(failure) = self.store.failure() {
                pending.fail(failure);
                continue;
            }
            let batches: Vec<_> = pending.batches.iter().map(|(key, batch)| (*key, batch)).collect();
            match pending.log.append(&batches) {
                Ok(segment) => written.push((pending, segment)),
                Err(error) => pending.fail(&error.to_string()),
            }
        }
        for (pending, segment) in written {
            match segment.sync() {
                Ok(()) => pending.complete(),
                Err(error) => {
                    tracing::error!(%error, "sync failed, rejecting batches until restart");
                    pending.fail(&error.to_string());
                    self.store.fail(error.to_string());
                }
            }
        }
    }

    fn enforce_retention(&mut self) {
        let has_grown = self.committed_bytes > self.store.settings.retention_bytes / RETENTION_FRACTION;
        if !has_grown && self.last_retention.elapsed() < RETENTION_INTERVAL {
            return;
        }
        self.last_retention = Instant::now();
        self.committed_bytes = 0;
        if let Err(error) = self.store.enforce_retention(PublishTime::now()) {
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
