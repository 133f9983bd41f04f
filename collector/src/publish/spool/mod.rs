//! What was read and the bus has not taken: in memory while it is little, on disk when the bus is away, and when the disk's share is full, told as lost.
//!
//! A stream's batches go to disk in their order, with their seqs and anchors, and come back in it: `Backlog` is one stream's, `Spool` bounds and knows them
//! all. What the newest entry says is where reading goes on after a restart (the *read* mark, written with the data and so never ahead of it); the checkpoint
//! says what the bus has (the *published* mark). Nothing is synced: a killed process keeps what it wrote, and a lost node loses the directory anyway.

mod compact;
mod format;
mod segments;

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::{
    anchor::fingerprint,
    error::CollectorError,
    instance::InstanceKey,
    metrics::{Metrics, Reason},
    publish::{
        checkpoint::{Checkpoints, Record, encode},
        entry::Step,
    },
};

pub use segments::Last;
use segments::Shelf;

/// The least a spool is bounded to: a few of the smallest segments.
pub const MIN_BYTES: u64 = 4 << 20;

/// A segment is the unit of eviction: a thirty-second part of the spool, within these.
const SEGMENT_BYTES: std::ops::RangeInclusive<u64> = (64 << 10)..=(4 << 20);

/// Streams that publish at once what had to wait: enough to fill any bus, and no crowd at its door when it comes back.
const TURNS: usize = 8;

/// What all streams may hold in memory before they go to disk: under 150 MB for the whole process, with what its buffers double.
const MAX_MEMORY: usize = 48 << 20;

/// The file that says whose directory it is.
const WHOSE: &str = "instance";

/// All streams' batches that wait for the bus.
pub struct Spool {
    dir: PathBuf,
    limit: u64,
    shelves: Mutex<HashMap<InstanceKey, Arc<Mutex<Shelf>>>>,
    memory: AtomicUsize,
    turns: Arc<Semaphore>,
    /// A disk that refuses is told once.
    failing: AtomicBool,
    metrics: Metrics,
}

/// One stream's batches on disk.
pub struct Backlog {
    spool: Arc<Spool>,
    key: InstanceKey,
    shelf: Arc<Mutex<Shelf>>,
    /// What the stream holds in memory.
    memory: usize,
}

impl Spool {
    /// In this directory, made when it is needed. Directories of instances that no checkpoint knows are removed: nobody would read them.
    ///
    /// # Errors
    /// [`CollectorError::Open`] where it cannot be read.
    pub fn open(dir: &Path, limit: u64, checkpoints: &Checkpoints, metrics: Metrics) -> Result<Self, CollectorError> {
        let spool = Self {
            dir: dir.to_owned(),
            limit: limit.max(MIN_BYTES),
            shelves: Mutex::default(),
            memory: AtomicUsize::new(0),
            turns: Arc::new(Semaphore::new(TURNS)),
            failing: AtomicBool::new(false),
            metrics,
        };
        spool
            .remove_orphans(checkpoints)
            .map_err(|error| CollectorError::Open {
                dir: dir.to_owned(),
                reason: error.to_string(),
            })?;
        Ok(spool)
    }

    /// An instance's batches, those of before included.
    pub fn backlog(self: &Arc<Self>, key: &InstanceKey, record: &Record) -> Backlog {
        let dir = self.dir_of(key);
        let segment = (self.limit / 32).clamp(*SEGMENT_BYTES.start(), *SEGMENT_BYTES.end());
        let shelf = Shelf::open(&dir, segment, record).unwrap_or_else(|error| {
            tracing::error!(%error, dir = %dir.display(), "spooled batches cannot be read");
            Shelf::at(&dir, segment)
        });
        let shelf = Arc::new(Mutex::new(shelf));
        self.shelves.lock().insert(key.clone(), Arc::clone(&shelf));
        self.count();
        Backlog {
            spool: Arc::clone(self),
            key: key.clone(),
            shelf,
            memory: 0,
        }
    }

    /// Whether all streams together hold more in memory than they may.
    pub fn is_crowded(&self) -> bool {
        self.memory.load(Ordering::Relaxed) > MAX_MEMORY
    }

    /// Who may publish what had to wait.
    pub fn turns(&self) -> Arc<Semaphore> {
        Arc::clone(&self.turns)
    }

    fn dir_of(&self, key: &InstanceKey) -> PathBuf {
        self.dir.join(format!("{:016x}", fingerprint(&encode(key))))
    }

    fn remove_orphans(&self, checkpoints: &Checkpoints) -> io::Result<()> {
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        for entry in entries {
            let dir = entry?.path();
            let key = fs::read(dir.join(WHOSE)).ok();
            let key = key.and_then(|key| serde_json::from_slice::<InstanceKey>(&key).ok());
            if key.is_none_or(|key| checkpoints.get(&key).is_none() || self.dir_of(&key) != dir) {
                tracing::warn!(dir = %dir.display(), "spooled batches of no known stream removed");
                fs::remove_dir_all(&dir)?;
            }
        }
        Ok(())
    }

    /// Until it fits, the stream that has the most on disk loses its oldest: a loud one does not cost a quiet one its lines.
    fn make_room(&self) {
        while self.count() > self.limit {
            let largest = self
                .shelves
                .lock()
                .values()
                .max_by_key(|shelf| shelf.lock().bytes())
                .cloned();
            let Some(largest) = largest else { return };
            match largest.lock().evict() {
                Ok(Some(lines)) => {
                    self.metrics.lost(Reason::spool, lines);
                    tracing::debug!(lines, "spool full: the oldest are lost");
                }
                Ok(None) => return,
                Err(error) => return tracing::error!(%error, "spool cannot make room"),
            }
        }
    }

    /// Bytes on disk.
    fn count(&self) -> u64 {
        let bytes = self.shelves.lock().values().map(|shelf| shelf.lock().bytes()).sum();
        self.metrics.spooled(bytes);
        bytes
    }
}

impl Backlog {
    /// Whether nothing is on disk.
    pub fn is_empty(&self) -> bool {
        self.shelf.lock().is_empty()
    }

    /// Where what is on disk ends.
    pub fn last(&self) -> Last {
        self.shelf.lock().last().clone()
    }

    /// The spool it is part of.
    pub fn spool(&self) -> &Spool {
        &self.spool
    }

    /// Puts a step behind the others on disk. Returns whether it is there.
    pub fn append(&self, step: &Step) -> bool {
        let written = self.say_whose().and_then(|()| self.shelf.lock().append(step));
        let was_failing = self.spool.failing.swap(written.is_err(), Ordering::Relaxed);
        match &written {
            Ok(()) => self.spool.make_room(),
            Err(error) if !was_failing => {
                tracing::error!(%error, "spool cannot be written: what is read waits in memory")
            }
            Err(_) => {}
        }
        written.is_ok()
    }

    /// See [`Shelf::mark_taken`].
    pub fn mark_taken(&self) {
        self.shelf.lock().mark_taken();
    }

    /// See [`Shelf::take`]; what cannot be read any more is given up, all of it, with the place where it ended.
    pub fn take(&self) -> Result<Option<Step>, Last> {
        let mut shelf = self.shelf.lock();
        shelf.take().map_err(|error| {
            tracing::error!(%error, "spooled batches cannot be read any more");
            let last = shelf.last().clone();
            shelf.clear();
            last
        })
    }

    /// See [`Shelf::put_back`].
    pub fn put_back(&self) {
        self.shelf.lock().put_back();
    }

    /// See [`Shelf::settle`].
    pub fn settle(&self) {
        self.shelf.lock().settle();
        if self.is_empty() {
            // With nothing in it, it tells nothing.
            let _ = fs::remove_dir_all(self.spool.dir_of(&self.key));
        }
        self.spool.count();
    }

    /// Says what the stream holds in memory now.
    pub fn hold(&mut self, bytes: usize) {
        if bytes >= self.memory {
            self.spool.memory.fetch_add(bytes - self.memory, Ordering::Relaxed);
        } else {
            self.spool.memory.fetch_sub(self.memory - bytes, Ordering::Relaxed);
        }
        self.memory = bytes;
    }

    fn say_whose(&self) -> io::Result<()> {
        if !self.is_empty() {
            return Ok(());
        }
        let dir = self.spool.dir_of(&self.key);
        fs::create_dir_all(&dir)?;
        fs::write(dir.join(WHOSE), encode(&self.key))
    }
}

impl Drop for Backlog {
    fn drop(&mut self) {
        self.hold(0);
        let mut shelves = self.spool.shelves.lock();
        if shelves.get(&self.key).is_some_and(|own| Arc::ptr_eq(own, &self.shelf)) {
            shelves.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests;
