//! The one writer: gathers what publishers hand over, and syncs it once for all of them.

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

/// Bytes of one sync: above this, what waits is better served by the next.
const MAX_COMMIT_BYTES: usize = 2 << 20;

/// What may be added before retention looks again: this part of the limit.
const RETENTION_SLACK: u64 = 16;

/// How often retention looks for what is too old.
const RETENTION_INTERVAL: Duration = Duration::from_secs(5);

type Done = oneshot::Sender<Result<(), BusError>>;

/// What the committer is asked to do.
pub(super) enum Command {
    /// Make an app's topic.
    Create { app: AppName, done: Done },
    /// Keep a batch.
    Publish { batch: Batch, done: Done },
    /// Remove an app's topic.
    Remove { app: AppName, done: Done },
    /// Commit what came before, then end.
    Stop,
}

/// The committer's thread; ends, having committed what it was given, when dropped.
pub(super) struct Committer {
    commands: SyncSender<Command>,
    thread: Option<JoinHandle<()>>,
}

impl Committer {
    /// Starts the thread. `capacity` is what its budget can let in at once; a full queue is therefore never met.
    pub(super) fn start(store: Arc<Store>, capacity: usize) -> io::Result<Self> {
        let (commands, queue) = sync_channel(capacity);
        let run = move || Run::new(store, queue).run();
        let thread = std::thread::Builder::new().name("bus-commit".to_owned()).spawn(run)?;
        Ok(Self {
            commands,
            thread: Some(thread),
        })
    }

    /// Hands over a command.
    ///
    /// # Errors
    /// [`BusError::Closed`] where the thread is gone.
    pub(super) fn send(&self, command: Command) -> Result<(), BusError> {
        self.commands.try_send(command).map_err(|_| BusError::Closed)
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        // Waits for room; the thread is gone only where it panicked.
        let _ = self.commands.send(Command::Stop);
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed by its hook, and there is no one left to tell.
            let _ = thread.join();
        }
    }
}

struct Run {
    store: Arc<Store>,
    queue: Receiver<Command>,
    pending: Vec<Pending>,
    stopped: bool,
    swept: Instant,
    committed_bytes: u64,
}

/// What one round writes to one app.
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
            swept: Instant::now(),
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
            self.sweep();
        }
    }

    /// One command and all that wait behind it, up to what one sync should carry.
    fn round(&mut self, first: Command) {
        let mut bytes = 0;
        let mut next = Some(first);
        while let Some(command) = next {
            bytes += self.take(command);
            let more = bytes < MAX_COMMIT_BYTES && !self.stopped;
            next = if more { self.queue.try_recv().ok() } else { None };
        }
        self.committed_bytes += bytes as u64;
        self.commit();
    }

    /// Publishing gathers; what removes first commits what was gathered, so that order holds.
    fn take(&mut self, command: Command) -> usize {
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
        let at = self.pending.iter().position(|pending| Arc::ptr_eq(&pending.log, &log));
        let at = at.unwrap_or_else(|| {
            self.pending.push(Pending {
                log,
                batches: Vec::new(),
                done: Vec::new(),
            });
            self.pending.len() - 1
        });
        let pending = &mut self.pending[at];
        // The key is the time and unique: a clock that stands or steps back moves on by microseconds.
        let before = pending
            .batches
            .last()
            .map_or_else(|| *pending.log.newest.borrow(), |(key, _)| *key);
        let key = PublishTime::now().0.max(before + 1);
        let bytes = batch.data().len();
        pending.batches.push((key, batch));
        pending.done.push(done);
        bytes
    }

    /// Writes what was gathered, an app after the other, syncs it, wakes the readers, tells the publishers.
    fn commit(&mut self) {
        let mut written = Vec::with_capacity(self.pending.len());
        for pending in self.pending.drain(..) {
            if let Some(failure) = self.store.failure() {
                pending.refuse(failure);
                continue;
            }
            let batches: Vec<_> = pending.batches.iter().map(|(key, batch)| (*key, batch)).collect();
            match pending.log.append(&batches) {
                Ok(segment) => written.push((pending, segment)),
                Err(error) => pending.refuse(&error.to_string()),
            }
        }
        for (pending, segment) in written {
            match segment.sync() {
                Ok(()) => pending.accept(),
                Err(error) => {
                    tracing::error!(%error, "the disk failed: nothing is accepted until a restart");
                    pending.refuse(&error.to_string());
                    self.store.fail(error.to_string());
                }
            }
        }
    }

    fn sweep(&mut self) {
        let much = self.committed_bytes > self.store.limits.retention_bytes / RETENTION_SLACK;
        if !much && self.swept.elapsed() < RETENTION_INTERVAL {
            return;
        }
        self.swept = Instant::now();
        self.committed_bytes = 0;
        if let Err(error) = self.store.enforce_retention(PublishTime::now()) {
            tracing::warn!(%error, "retention failed, to be tried again");
        }
    }
}

impl Pending {
    fn accept(self) {
        self.log.reveal(self.batches);
        self.done.into_iter().for_each(|done| answer(done, Ok(())));
    }

    fn refuse(self, reason: &str) {
        for done in self.done {
            answer(done, Err(BusError::Store(io::Error::other(reason.to_owned()))));
        }
    }
}

/// A publisher that no longer waits needs no answer.
fn answer(done: Done, result: Result<(), BusError>) {
    let _ = done.send(result);
}
