//! Checkpoints on the node's disk: what of each stream is on the bus.

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use bus::{AppName, Fd, StreamId, StreamMetadata};
use fjall::{Database, Keyspace, KeyspaceCreateOptions};
use serde::{Deserialize, Serialize};

use crate::{
    anchor::ResumePoint,
    error::CollectorError,
    instance::{InstanceKey, fd_of},
    publish::{file_checkpoint::FileCheckpoint, private},
};

/// Checkpoints are small and few; a larger block cache would only hold them twice.
const CACHE_BYTES: u64 = 1 << 20;

/// Overwritten checkpoints are compacted this often: about every 2,000 batches.
const MEMTABLE_BYTES: u64 = 1 << 20;

/// The minimum that fjall allows.
const JOURNAL_BYTES: u64 = 64 << 20;

const KEYSPACE: &str = "streams";

/// File checkpoints, for instances whose log files are read.
const FILE_CHECKPOINTS: &str = "file_checkpoints";

/// The first file that fjall creates in a new directory.
const FIRST_FILE: &str = "lock";

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
}

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
///
/// An insert reaches the operating system without a sync: it survives a killed process; a lost node
/// loses the directory anyway.
#[derive(Clone)]
pub struct CheckpointStore {
    streams: Keyspace,
    file_checkpoints: Keyspace,
    // Last, so that it is closed after its keyspaces.
    _db: Database,
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
        }
    }

    /// Creates the checkpoint of the instance's next stream. What is known of the instance is kept;
    /// the gap of unseen instances has been recorded.
    pub fn for_new_epoch(&self, metadata: &StreamMetadata) -> Self {
        Self {
            restarts: self.restarts,
            expected: self.expected,
            ..Self::new(metadata)
        }
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
    /// Opens the directory and creates it if it does not exist. A damaged store is renamed and
    /// replaced by an empty one; a directory with other content, or with a temporary I/O error, is
    /// left unchanged. Blocks: call it at startup.
    ///
    /// # Errors
    /// [`CollectorError::InUse`] if another collector uses the directory, [`CollectorError::Open`]
    /// if it cannot be used.
    pub fn open(dir: &Path) -> Result<Self, CollectorError> {
        let failed = |reason: String| CollectorError::Open {
            dir: dir.to_owned(),
            reason,
        };
        check_contents(dir).map_err(failed)?;
        let unreadable = match try_open(dir) {
            Ok(checkpoints) => return Ok(checkpoints),
            Err(fjall::Error::Locked) => return Err(CollectorError::InUse(dir.to_owned())),
            Err(error) if is_unreadable(&error) => describe(&error),
            Err(error) => return Err(failed(describe(&error))),
        };
        let set_aside_path = set_aside_path(dir);
        std::fs::rename(dir, &set_aside_path)
            .map_err(|error| failed(format!("{unreadable}, and renaming it failed: {error}")))?;
        tracing::warn!(dir = %dir.display(), set_aside = %set_aside_path.display(), describe = unreadable, "checkpoint store damaged, starting with an empty one");
        try_open(dir).map_err(|error| failed(describe(&error)))
    }

    /// Returns all checkpoints. Unreadable ones are skipped with a warning.
    pub fn all(&self) -> Vec<(InstanceKey, Checkpoint)> {
        let read = |guard: fjall::Guard| {
            let (key, value) = guard.into_inner().ok()?;
            Some((serde_json::from_slice(&key).ok()?, serde_json::from_slice(&value).ok()?))
        };
        let mut checkpoints = Vec::new();
        for guard in self.streams.iter() {
            match read(guard) {
                Some(checkpoint) => checkpoints.push(checkpoint),
                None => tracing::warn!("checkpoint unreadable, skipping it"),
            }
        }
        checkpoints
    }

    /// Returns the checkpoint of an instance, or `None` if there is none or it is unreadable.
    pub fn get(&self, key: &InstanceKey) -> Option<Checkpoint> {
        let value = self.streams.get(encode(key)).ok()??;
        serde_json::from_slice(&value).ok()
    }

    /// Writes the checkpoint of an instance.
    ///
    /// A write error is logged and otherwise ignored: with the older checkpoint lines are sent
    /// again or a gap is recorded, but sequence numbers are never reused for other lines.
    pub fn save(&self, key: &InstanceKey, checkpoint: &Checkpoint) {
        if let Err(error) = self.streams.insert(encode(key), encode(checkpoint)) {
            tracing::error!(%error, "checkpoint write failed");
        }
    }

    /// Deletes the checkpoint of an instance; that of standard output together with that of
    /// standard error and the file checkpoint.
    pub fn delete(&self, key: &InstanceKey) {
        let mut removed = self.streams.remove(encode(key));
        if key.fd() == Some(Fd::Out) {
            removed = removed.and(self.streams.remove(encode(&key.with_fd(Fd::Err))));
            removed = removed.and(self.file_checkpoints.remove(encode(key)));
        }
        if let Err(error) = removed {
            tracing::error!(%error, "checkpoint delete failed");
        }
    }

    /// Returns the file checkpoint of an instance, or `None` if there is none or it is unreadable.
    pub fn file_checkpoint(&self, key: &InstanceKey) -> Option<FileCheckpoint> {
        let value = self.file_checkpoints.get(encode(key)).ok()??;
        serde_json::from_slice(&value).ok()
    }

    /// Writes the file checkpoint of an instance.
    ///
    /// A write error is logged and otherwise ignored: with the older checkpoint more is read again,
    /// or a gap is recorded if its file is gone.
    pub fn save_file_checkpoint(&self, key: &InstanceKey, file_checkpoint: &FileCheckpoint) {
        if let Err(error) = self.file_checkpoints.insert(encode(key), encode(file_checkpoint)) {
            tracing::error!(%error, "checkpoint write failed");
        }
    }
}

fn try_open(dir: &Path) -> fjall::Result<CheckpointStore> {
    private::create_dir_all(dir)?;
    let db = Database::builder(dir)
        .cache_size(CACHE_BYTES)
        .max_journaling_size(JOURNAL_BYTES)
        .worker_threads(1)
        .open()?;
    let options = || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES);
    Ok(CheckpointStore {
        streams: db.keyspace(KEYSPACE, options)?,
        file_checkpoints: db.keyspace(FILE_CHECKPOINTS, options)?,
        _db: db,
    })
}

/// Rejects a directory with other content, which must be neither written to nor renamed.
fn check_contents(dir: &Path) -> Result<(), String> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) if error.kind() == ErrorKind::NotADirectory => return Err("not a directory".to_owned()),
        Err(error) => return Err(error.to_string()),
    };
    let mut is_empty = true;
    for entry in entries {
        let name = entry.map_err(|error| error.to_string())?.file_name();
        if name == FIRST_FILE {
            return Ok(());
        }
        // Exists in the root of a volume.
        is_empty &= name == "lost+found";
    }
    if is_empty {
        Ok(())
    } else {
        Err("it contains files that are not checkpoints".to_owned())
    }
}

/// Returns whether the store was read and is invalid. Other errors may be temporary and do not
/// justify replacing it.
fn is_unreadable(error: &fjall::Error) -> bool {
    use fjall::Error;
    match error {
        Error::Storage(error) => !matches!(error, fjall::LsmError::Io(_)),
        Error::JournalRecovery(_)
        | Error::InvalidVersion(_)
        | Error::Decompress(_)
        | Error::InvalidTrailer
        | Error::InvalidTag(_)
        | Error::Unrecoverable => true,
        _ => false,
    }
}

/// Describes an error for the operator.
fn describe(error: &fjall::Error) -> String {
    use fjall::Error;
    match error {
        Error::Io(error) | Error::Storage(fjall::LsmError::Io(error)) => error.to_string(),
        Error::InvalidVersion(_) => "it was written by another version or is damaged".to_owned(),
        error if is_unreadable(error) => "the checkpoint store is damaged".to_owned(),
        _ => "disk error".to_owned(),
    }
}

fn set_aside_path(dir: &Path) -> PathBuf {
    let millis = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_millis();
    let mut name = dir.as_os_str().to_owned();
    name.push(format!(".set-aside-{millis}"));
    name.into()
}

/// Encodes a checkpoint or its key.
pub fn encode(value: &impl Serialize) -> Vec<u8> {
    // Plain structs of strings and numbers always encode.
    serde_json::to_vec(value).unwrap_or_default()
}
