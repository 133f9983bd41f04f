//! The on-disk buffer for data that the bus has not accepted.
//!
//! A stream's entries are written in order, with their sequence numbers and anchors, and read back
//! in order. `StreamSpool` holds one stream, `Spool` bounds all of them. The newest entry says
//! where reading resumes after a restart; it is written with the data and so never ahead of it. The
//! checkpoint says what the bus has. Writes are not synced: they survive a killed process, and a
//! lost node loses the directory anyway. If the spool is full, the oldest batches of the largest
//! stream become gaps.

mod compact;
mod failure;
mod format;
mod lost;
mod orphans;
mod segments;

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bus::GapReason;
use parking_lot::Mutex;
use system::{
    collections::HashMap,
    files::{self, OpenOptions},
};
use tokio::sync::Semaphore;

use crate::{
    anchor::fingerprint,
    error::CollectorError,
    instance::InstanceKey,
    metrics::Metrics,
    publish::{
        checkpoint::{Checkpoint, CheckpointStore, encode},
        entry::OutboxEntry,
    },
};

use failure::Failure;
pub use lost::replace_lost;
use segments::Segments;
pub use segments::SpoolEnd;

/// Minimum size of a spool: a few of the smallest segments.
pub const MIN_BYTES: u64 = 4 << 20;

/// A segment is the unit of eviction: 1/32 of the spool, within these bounds.
const SEGMENT_BYTES: std::ops::RangeInclusive<u64> = (64 << 10)..=(4 << 20);

/// Number of streams that publish delayed entries at a time: enough to saturate any bus without
/// overloading it when it recovers.
const MAX_CONCURRENT_PUBLISHES: usize = 8;

/// Upper bound for the buffered data of all streams before they spool. Keeps the process below 150
/// MB.
const MAX_BUFFERED_BYTES: usize = 48 << 20;

/// The file that names the owner of a directory.
const OWNER_FILE: &str = "instance";

/// The spool of all streams.
pub struct Spool {
    dir: PathBuf,
    limit: u64,
    streams: Mutex<HashMap<InstanceKey, Arc<Mutex<Segments>>>>,
    buffered: AtomicUsize,
    permits: Arc<Semaphore>,
    failure: Failure,
    metrics: Metrics,
}

/// One stream's spooled entries.
pub struct StreamSpool {
    spool: Arc<Spool>,
    key: InstanceKey,
    segments: Arc<Mutex<Segments>>,
    /// The stream's buffered bytes in memory.
    buffered: usize,
}

/// Why the oldest entry cannot be read.
#[derive(Debug)]
pub enum ReadError {
    /// The disk refuses it for now. Nothing is discarded.
    Refused(io::Error),
    /// The entries are damaged or gone. All were discarded; they ended here.
    Lost(SpoolEnd),
}

impl Spool {
    /// Opens the spool in a directory, which is created on demand. Spooled streams without a
    /// checkpoint get one.
    ///
    /// # Errors
    /// [`CollectorError::Open`] if the directory cannot be read.
    pub fn open(
        dir: &Path,
        limit: u64,
        checkpoints: &CheckpointStore,
        metrics: Metrics,
    ) -> Result<Self, CollectorError> {
        let spool = Self {
            dir: dir.to_owned(),
            limit: limit.max(MIN_BYTES),
            streams: Mutex::default(),
            buffered: AtomicUsize::new(0),
            permits: Arc::new(Semaphore::new(MAX_CONCURRENT_PUBLISHES)),
            failure: Failure::default(),
            metrics,
        };
        spool.adopt_orphans(checkpoints).map_err(|error| CollectorError::Open {
            dir: dir.to_owned(),
            reason: error.to_string(),
        })?;
        Ok(spool)
    }

    /// Opens an instance's spool, including entries from before a restart.
    ///
    /// # Errors
    /// The entries cannot be read now. They are kept.
    pub fn stream_spool(self: &Arc<Self>, key: &InstanceKey, checkpoint: &Checkpoint) -> io::Result<StreamSpool> {
        let dir = self.dir_of(key);
        let segment = (self.limit / 32).clamp(*SEGMENT_BYTES.start(), *SEGMENT_BYTES.end());
        // Most instances have no directory, which shows without a file descriptor.
        let is_missing = files::metadata(&dir).is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
        let segments = if is_missing {
            Segments::empty(&dir, segment)
        } else {
            Segments::open(&dir, segment, checkpoint)?
        };
        if segments.is_empty() {
            // An empty directory has no information.
            let _ = files::remove_dir_all(&dir);
        }
        let segments = Arc::new(Mutex::new(segments));
        self.streams.lock().insert(key.clone(), Arc::clone(&segments));
        self.update_size();
        Ok(StreamSpool {
            spool: Arc::clone(self),
            key: key.clone(),
            segments,
            buffered: 0,
        })
    }

    /// Returns why the spool cannot be written; `None` if it can.
    pub fn failure(&self) -> Option<String> {
        self.failure.check(&self.dir, &self.metrics)
    }

    /// Returns whether all streams together exceed the memory limit.
    pub fn is_crowded(&self) -> bool {
        self.buffered.load(Ordering::Relaxed) > MAX_BUFFERED_BYTES
    }

    /// Returns the permits for publishing delayed entries.
    pub fn permits(&self) -> Arc<Semaphore> {
        Arc::clone(&self.permits)
    }

    fn dir_of(&self, key: &InstanceKey) -> PathBuf {
        self.dir.join(format!("{:016x}", fingerprint(&encode(key))))
    }

    /// Evicts from the stream with the most data on disk until the spool fits, so that a stream
    /// with high volume does not cost others their lines.
    fn make_room(&self) {
        while self.update_size() > self.limit {
            let largest = self
                .streams
                .lock()
                .values()
                .max_by_key(|segments| segments.lock().bytes())
                .cloned();
            let Some(largest) = largest else { return };
            match largest.lock().evict_oldest() {
                Ok(Some(lines)) => {
                    self.metrics.record_gap(&GapReason::Spool, lines);
                    system::probe!("spool: the oldest batches are dropped");
                    tracing::debug!(lines, "spool full, oldest batches dropped");
                }
                Ok(None) => return,
                Err(error) => return tracing::error!(%error, "spool eviction failed"),
            }
        }
    }

    /// Updates and returns the number of bytes on disk.
    fn update_size(&self) -> u64 {
        let bytes = self
            .streams
            .lock()
            .values()
            .map(|segments| segments.lock().bytes())
            .sum();
        self.metrics.set_spool_bytes(bytes);
        bytes
    }
}

impl StreamSpool {
    /// Returns whether nothing is on disk.
    pub fn is_empty(&self) -> bool {
        self.segments.lock().is_empty()
    }

    /// Returns where the spooled data ends.
    pub fn end(&self) -> SpoolEnd {
        self.segments.lock().end().clone()
    }

    /// Returns the spool of all streams.
    pub fn spool(&self) -> &Spool {
        &self.spool
    }

    /// Appends an entry. Returns whether it was written.
    pub fn append(&self, entry: &OutboxEntry) -> bool {
        let written = self.write_owner().and_then(|()| self.segments.lock().append(entry));
        self.spool.failure.record(&written, &self.spool.metrics);
        if written.is_ok() {
            self.spool.make_room();
        } else {
            self.remove_if_empty();
        }
        written.is_ok()
    }

    /// See [`Segments::mark_in_flight`].
    pub fn mark_in_flight(&self) {
        self.segments.lock().mark_in_flight();
    }

    /// See [`Segments::read_next`].
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn read_next(&self) -> Result<Option<OutboxEntry>, ReadError> {
        let read = self.segments.lock().read_next();
        let error = match read {
            Ok(entry) => return Ok(entry),
            Err(error) => error,
        };
        if !is_loss(&error) {
            return Err(ReadError::Refused(error));
        }
        tracing::error!(%error, "spool unreadable, gap recorded");
        let end = self.segments.lock().discard_all();
        self.remove_dir();
        self.spool.update_size();
        Err(ReadError::Lost(end))
    }

    /// See [`Segments::requeue`].
    pub fn requeue(&self) {
        self.segments.lock().requeue();
    }

    /// See [`Segments::confirm`].
    pub fn confirm(&self) {
        self.segments.lock().confirm();
        self.remove_if_empty();
        self.spool.update_size();
    }

    fn remove_if_empty(&self) {
        if self.is_empty() {
            self.remove_dir();
        }
    }

    /// Removes the directory of an empty spool, which has no information.
    fn remove_dir(&self) {
        let _ = files::remove_dir_all(&self.spool.dir_of(&self.key));
    }

    /// Reports the stream's buffered bytes.
    pub fn report_buffered(&mut self, bytes: usize) {
        if bytes >= self.buffered {
            self.spool.buffered.fetch_add(bytes - self.buffered, Ordering::Relaxed);
        } else {
            self.spool.buffered.fetch_sub(self.buffered - bytes, Ordering::Relaxed);
        }
        self.buffered = bytes;
    }

    fn write_owner(&self) -> io::Result<()> {
        if !self.is_empty() {
            return Ok(());
        }
        let dir = self.spool.dir_of(&self.key);
        files::create_dir_all(&dir)?;
        let options = OpenOptions::new().write(true).create(true).truncate(true);
        options.open(&dir.join(OWNER_FILE))?.write_at(&encode(&self.key), 0)
    }
}

impl Drop for StreamSpool {
    fn drop(&mut self) {
        self.report_buffered(0);
        let mut streams = self.spool.streams.lock();
        if streams
            .get(&self.key)
            .is_some_and(|own| Arc::ptr_eq(own, &self.segments))
        {
            streams.remove(&self.key);
        }
    }
}

/// Returns whether reading again cannot succeed: the content is not what was written. All else, such
/// as a process without file descriptors, can end.
fn is_loss(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof | io::ErrorKind::NotFound
    )
}

#[cfg(test)]
mod fault_tests;
#[cfg(test)]
mod tests;
