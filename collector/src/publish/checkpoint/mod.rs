//! Checkpoints on the node's disk: what of each stream is on the bus.
//!
//! All checkpoints are in memory; each change is appended to a [`journal`] without a sync. It survives
//! a killed process. The journal is synced before the first batch of a stream is published, and every
//! few seconds. After a loss of power, which the [`boot`] id shows, checkpoints may therefore be older
//! than what the bus has, but no stream is missing. The whole state of a node is some hundred
//! kilobytes, so that a journal suffices where a database would have threads and files of its own.
//!
//! If the disk refuses a write, the checkpoints stay in memory and are written once it accepts
//! writes again. A damaged file is kept under another name, what is readable of it is used, and
//! [`CheckpointStore::open`] returns a [`Damage`], because older checkpoints may have taken the place
//! of newer ones. The spool is not affected. All checkpoints are then marked as doubtful: their
//! instances start new streams, which say that lines may be repeated. Outdated checkpoints go on in
//! the same stream if the log contains their line: the lines after it get the same numbers again.

mod boot;
mod directory;
mod journal;
mod record;
mod recovery;
mod watermark;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bus::{AppName, Fd, StreamId, StreamMetadata};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use system::task;
use tokio::sync::Notify;

use crate::{
    anchor::ResumePoint,
    error::CollectorError,
    instance::{InstanceKey, fd_of},
    metrics::Metrics,
    publish::file_checkpoint::{FileCheckpoint, LineCount},
};
use directory::cannot_open;
use journal::Journal;

/// First byte of the keys of checkpoints.
const STREAMS: u8 = b's';

/// First byte of the keys of file checkpoints, for instances whose log files are read.
const FILE_CHECKPOINTS: u8 = b'f';

/// The checkpoint of one container instance's stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    stream: String,
    app: String,
    process: String,
    node: String,
    /// The end of the last batch that the bus accepted.
    pub accepted: Option<ResumePoint>,
    /// The farthest end of a batch that was sent to the bus; it may have been accepted.
    pub sent: Option<ResumePoint>,
    /// The bus has the end of the stream.
    pub ended: bool,
    /// The number of earlier instances of the container.
    #[serde(default)]
    pub restarts: Option<u32>,
    /// An earlier instance of the container has a checkpoint, so this one is expected from its
    /// first line.
    #[serde(default)]
    pub expected: bool,
    /// Instances that were never seen between the one with a checkpoint and this one; recorded as a
    /// gap before the first line.
    #[serde(default)]
    pub unseen: Option<UnseenInstances>,
    /// It may be damaged: the next line starts a new stream, which says that lines may be repeated.
    #[serde(default)]
    pub doubtful: bool,
    /// It may be older than what the bus has. If its line is found, reading it again yields the same
    /// lines with the same numbers; otherwise it is doubtful.
    #[serde(default)]
    pub outdated: bool,
    /// Positions in earlier streams of the instance at which this one starts. File checkpoints may
    /// still count the lines of those.
    #[serde(default)]
    pub continues: Vec<LineCount>,
}

/// How a new stream of an instance starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamStart {
    /// The line after which the stream starts, and its number in the stream before; `None`: reading
    /// starts at the beginning of the log.
    pub after: Option<ResumePoint>,
    /// A notice that lines may be repeated follows.
    pub may_repeat: bool,
}

/// How many earlier streams a checkpoint continues: two starts soon after each other are rare.
const MAX_CONTINUED: usize = 4;

/// The time range of container instances that were never seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnseenInstances {
    /// Time of the last line of the instance before them, in nanoseconds since 1970.
    pub from: Option<i64>,
    /// When the instance after them was first seen. Stored, so that recording the gap again yields
    /// the same gap.
    pub to: i64,
}

/// The checkpoints, in a directory that only this collector uses. Clones share it.
#[derive(Clone)]
pub struct CheckpointStore(Arc<Inner>);

struct Inner {
    /// Keeps the directory locked.
    journal: Mutex<Journal>,
    /// One sync at a time.
    syncs: tokio::sync::Mutex<()>,
    /// The first checkpoint of an instance was written.
    has_new: Notify,
    /// No collector has used the directory before.
    is_first_start: bool,
    /// The machine stopped before checkpoints were synced, perhaps the first of an instance.
    may_lack_new: AtomicBool,
}

/// Checkpoints that are missing or older than they were.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// What happened, for the operator.
    pub reason: String,
    /// Where the damaged file is kept.
    pub set_aside: Option<PathBuf>,
}

impl Checkpoint {
    /// Creates the checkpoint of a new stream.
    pub fn new(metadata: &StreamMetadata) -> Self {
        Self {
            stream: metadata.stream.to_string(),
            app: metadata.app.to_string(),
            process: metadata.process.clone(),
            node: metadata.node.clone(),
            accepted: None,
            sent: None,
            ended: false,
            restarts: None,
            expected: false,
            unseen: None,
            doubtful: false,
            outdated: false,
            continues: Vec::new(),
        }
    }

    /// Creates the checkpoint of the instance's next stream. What is known of the instance is kept;
    /// the gap of unseen instances has been recorded.
    pub fn for_new_epoch(&self, metadata: &StreamMetadata, start: StreamStart) -> Self {
        let after = start.after.map(|after| ResumePoint { seq_end: 0, ..after });
        Self {
            restarts: self.restarts,
            expected: self.expected,
            accepted: after,
            doubtful: self.doubtful || start.may_repeat,
            continues: self.continued_by(start),
            ..Self::new(metadata)
        }
    }

    fn continued_by(&self, start: StreamStart) -> Vec<LineCount> {
        let (Some(after), Some(metadata)) = (start.after, self.metadata()) else {
            return Vec::new();
        };
        let own = LineCount::new(&metadata.stream, after.seq_end);
        let older = self.continues.iter().map(|older| older.advanced_by(after.seq_end));
        std::iter::once(own).chain(older).take(MAX_CONTINUED).collect()
    }

    /// Returns the stored stream id.
    pub fn stream(&self) -> &str {
        &self.stream
    }

    /// Returns the last line that the bus may have.
    pub fn last_sent(&self) -> Option<ResumePoint> {
        self.sent.or(self.accepted)
    }

    /// Returns the metadata of the stream's batches, or `None` if the checkpoint is invalid.
    pub fn metadata(&self) -> Option<StreamMetadata> {
        Some(StreamMetadata {
            app: self.app.parse::<AppName>().ok()?,
            process: self.process.clone(),
            stream: self.stream.parse::<StreamId>().ok()?,
            node: self.node.clone(),
            origin: "app".to_owned(),
            fd: self.stream.split('/').nth(1).and_then(fd_of),
            about: None,
        })
    }

    /// Returns whether the checkpoint belongs to this stream.
    pub fn is_for(&self, stream: &StreamId) -> bool {
        self.stream == stream.as_str()
    }
}

impl CheckpointStore {
    /// Opens the directory and creates it if it does not exist. A directory with other content, or
    /// with a temporary I/O error, is left unchanged. Blocks: call it at startup.
    ///
    /// # Errors
    /// [`CollectorError::InUse`] if another collector uses the directory, [`CollectorError::Open`]
    /// if it cannot be used.
    pub fn open(dir: &Path, metrics: &Metrics) -> Result<(Self, Option<Damage>), CollectorError> {
        let lock = directory::lock(dir)?;
        let is_first_start = lock.1;
        let failures = metrics.checkpoint_write_failures.clone();
        let opened = directory::set_aside_former_store(dir)
            .and_then(|former| directory::remove_temporary_files(dir).map(|()| former))
            .and_then(|former| {
                let opened = Journal::open(dir, lock, former.is_some(), failures)?;
                Ok((former, opened))
            });
        let (former, (journal, damage)) = opened.map_err(|error| cannot_open(dir, error.to_string()))?;
        let store = Self(Arc::new(Inner {
            journal: Mutex::new(journal),
            syncs: tokio::sync::Mutex::default(),
            has_new: Notify::new(),
            is_first_start,
            may_lack_new: AtomicBool::new(false),
        }));
        if store.is_in_doubt() {
            store.mark(|checkpoint| checkpoint.doubtful = true);
        }
        if store.0.journal.lock().is_outdated() {
            store.mark(|checkpoint| checkpoint.outdated = true);
            store.0.may_lack_new.store(true, Ordering::Relaxed);
            store.0.journal.lock().end_outdated();
        }
        Ok((store, former.or(damage)))
    }

    /// Returns why checkpoints cannot be written; `None` if they can.
    pub fn failure(&self) -> Option<String> {
        let is_failing = self.0.journal.lock().is_failing();
        is_failing.then(|| "cannot write checkpoints; see the log for the error".to_owned())
    }

    /// Returns whether no collector has used the directory before.
    pub fn is_first_start(&self) -> bool {
        self.0.is_first_start
    }

    /// Returns whether checkpoints may be missing: what has none may have been read.
    pub fn is_in_doubt(&self) -> bool {
        self.0.may_lack_new.load(Ordering::Relaxed) || self.0.journal.lock().is_in_doubt()
    }

    /// From now on, what has no checkpoint was never read.
    pub fn end_doubt(&self) {
        self.0.may_lack_new.store(false, Ordering::Relaxed);
        self.0.journal.lock().end_doubt();
    }

    fn mark(&self, change: impl Fn(&mut Checkpoint)) {
        for (key, mut checkpoint) in self.all() {
            if !checkpoint.ended {
                change(&mut checkpoint);
                self.save(&key, &checkpoint);
            }
        }
    }

    /// Makes the checkpoints durable that were saved before.
    ///
    /// A failure is handled as that of a write: all checkpoints are written again.
    pub async fn sync(&self) {
        // A sync that is going on may not cover the newest ones.
        let _turn = self.0.syncs.lock().await;
        let Some(file) = self.0.journal.lock().unsynced() else {
            return;
        };
        let synced = task::blocking(move || file.sync()).await;
        if let Ok(Err(error)) = synced {
            self.0.journal.lock().sync_failed(&error);
        }
    }

    /// Makes the checkpoints durable after the last one was saved: they can be trusted on any
    /// machine.
    pub async fn shut_down(&self) {
        self.sync().await;
        self.0.journal.lock().shut_down();
        self.sync().await;
    }

    /// Returns all checkpoints. Unreadable ones are skipped with a warning.
    pub fn all(&self) -> Vec<(InstanceKey, Checkpoint)> {
        let decode = |(key, value): (&Vec<u8>, &Vec<u8>)| {
            let (key, value) = (serde_json::from_slice(&key[1..]), serde_json::from_slice(value));
            let checkpoint = key.ok().zip(value.ok());
            if checkpoint.is_none() {
                tracing::warn!("checkpoint unreadable, skipping it");
            }
            checkpoint
        };
        let journal = self.0.journal.lock();
        let streams = journal.entries().range(vec![STREAMS]..vec![STREAMS + 1]);
        streams.filter_map(decode).collect()
    }

    /// Returns the checkpoint of an instance, or `None` if there is none or it is unreadable.
    pub fn get(&self, key: &InstanceKey) -> Option<Checkpoint> {
        self.value(STREAMS, key)
    }

    /// Writes the checkpoint of an instance.
    ///
    /// A write error is logged and otherwise ignored: with the older checkpoint lines are sent
    /// again or a gap is recorded, but sequence numbers are never reused for other lines.
    pub fn save(&self, key: &InstanceKey, checkpoint: &Checkpoint) {
        let (key, value) = (entry_key(STREAMS, key), encode(checkpoint));
        let mut journal = self.0.journal.lock();
        let is_new = !journal.entries().contains_key(&key);
        journal.set(key, value);
        if is_new {
            self.0.has_new.notify_one();
        }
    }

    /// Returns when an instance has its first checkpoint. It must be synced soon: without it, a
    /// collector that starts after a loss of power does not end the stream, and declares no gap.
    ///
    /// *Cancel safety*: safe to drop and call again.
    pub async fn new_instance(&self) {
        self.0.has_new.notified().await;
    }

    /// Deletes the checkpoint of an instance; that of standard output together with that of
    /// standard error and the file checkpoint.
    pub fn delete(&self, key: &InstanceKey) {
        let mut journal = self.0.journal.lock();
        journal.remove(&entry_key(STREAMS, key));
        if key.fd() == Some(Fd::Out) {
            journal.remove(&entry_key(STREAMS, &key.with_fd(Fd::Err)));
            journal.remove(&entry_key(FILE_CHECKPOINTS, key));
        }
    }

    /// Returns the file checkpoint of an instance, or `None` if there is none or it is unreadable.
    pub fn file_checkpoint(&self, key: &InstanceKey) -> Option<FileCheckpoint> {
        self.value(FILE_CHECKPOINTS, key)
    }

    /// Writes the file checkpoint of an instance.
    ///
    /// A write error is logged and otherwise ignored: with the older checkpoint more is read again,
    /// or a gap is recorded if its file is gone.
    pub fn save_file_checkpoint(&self, key: &InstanceKey, file_checkpoint: &FileCheckpoint) {
        let (key, value) = (entry_key(FILE_CHECKPOINTS, key), encode(file_checkpoint));
        self.0.journal.lock().set(key, value);
    }

    /// Writes all checkpoints if an earlier write has failed. Each write does so too, but the last
    /// one may fail.
    pub fn retry(&self) {
        self.0.journal.lock().retry();
    }

    fn value<T: DeserializeOwned>(&self, table: u8, key: &InstanceKey) -> Option<T> {
        let journal = self.0.journal.lock();
        let value = journal.entries().get(&entry_key(table, key))?;
        serde_json::from_slice(value).ok()
    }
}

/// Encodes a checkpoint or its key.
pub fn encode(value: &impl Serialize) -> Vec<u8> {
    // Plain structs of strings and numbers always encode.
    serde_json::to_vec(value).unwrap_or_default()
}

fn entry_key(table: u8, key: &InstanceKey) -> Vec<u8> {
    let mut out = vec![table];
    out.extend(encode(key));
    out
}

#[cfg(test)]
mod full_disk_tests;
#[cfg(test)]
mod tests;
