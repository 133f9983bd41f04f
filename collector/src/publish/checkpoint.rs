//! What is on the bus, kept on the node's disk.

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
    publish::file_checkpoint::FileCheckpoint,
};

/// Records are small and few: a block cache would only hold them twice.
const CACHE_BYTES: u64 = 1 << 20;

/// Overwritten records are written out, and so collapse, this often: about 2,000 batches.
const MEMTABLE_BYTES: u64 = 1 << 20;

/// The least that fjall allows.
const JOURNAL_BYTES: u64 = 64 << 20;

const KEYSPACE: &str = "streams";

/// Of an instance whose files are read: from where they are read again.
const FILE_CHECKPOINTS: &str = "bases";

/// The file that fjall makes first in a new directory.
const FIRST_FILE: &str = "lock";

/// What is known of one container instance's stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    stream: String,
    app: String,
    process: String,
    node: String,
    /// The end of the last batch that the bus accepted.
    pub accepted: Option<ResumePoint>,
    /// The farthest end of a batch that was handed to the bus: it may have been accepted.
    pub sent: Option<ResumePoint>,
    /// The bus has the stream's end.
    pub ended: bool,
    /// How many instances of the container came before. `None`: an older version wrote it.
    #[serde(default)]
    pub restarts: Option<u32>,
    /// An instance of the container is on record that came before: this one is expected whole.
    #[serde(default)]
    pub expected: bool,
    /// Instances came and went between the one on record and this: to be told before its first line.
    #[serde(default)]
    pub unseen: Option<UnseenInstances>,
}

/// Instances of a container that were never seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnseenInstances {
    /// Of the last line that was had of the instance before, nanoseconds since 1970.
    pub from: Option<i64>,
    /// When the instance after them was first seen. Kept, so that the loss is the same loss when it is told again.
    pub to: i64,
}

/// The records, in a directory that is this collector's alone. Clones share it.
///
/// An insert reaches the operating system and is not synced: a killed process keeps it, and a lost node loses the directory anyway.
#[derive(Clone)]
pub struct CheckpointStore {
    streams: Keyspace,
    file_checkpoints: Keyspace,
    // Last, so that it is closed after its keyspace.
    _db: Database,
}

impl Checkpoint {
    /// Of a stream that begins.
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

    /// Of the stream that takes this one's place: what is known of the instance stays, and what came before it has been told.
    pub fn for_new_epoch(&self, metadata: &StreamMetadata) -> Self {
        Self {
            restarts: self.restarts,
            expected: self.expected,
            ..Self::new(metadata)
        }
    }

    /// The stream's id, as it was written.
    pub fn stream(&self) -> &str {
        &self.stream
    }

    /// The last line that the bus may have.
    pub fn last_sent(&self) -> Option<ResumePoint> {
        self.sent.or(self.accepted)
    }

    /// What the stream's batches have in common. `None` where the record was not written by us.
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

    /// Whether it is this stream's.
    pub fn is_for(&self, stream: &StreamId) -> bool {
        self.stream == stream.as_str()
    }
}

impl CheckpointStore {
    /// Opens the directory, made where it does not exist. A store whose content cannot be read is set aside under another name, and begun anew; what is no
    /// store of ours, or cannot be read for now, is left as it is. Blocks: call it at start.
    ///
    /// # Errors
    /// [`CollectorError::InUse`] where another collector has it, [`CollectorError::Open`] where it cannot be used.
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
            .map_err(|error| failed(format!("{unreadable}, and it cannot be set aside: {error}")))?;
        tracing::warn!(dir = %dir.display(), set_aside = %set_aside_path.display(), describe = unreadable, "checkpoints unreadable: begun anew");
        try_open(dir).map_err(|error| failed(describe(&error)))
    }

    /// All records. One that cannot be read is skipped, with a warning.
    pub fn all(&self) -> Vec<(InstanceKey, Checkpoint)> {
        let read = |guard: fjall::Guard| {
            let (key, value) = guard.into_inner().ok()?;
            Some((serde_json::from_slice(&key).ok()?, serde_json::from_slice(&value).ok()?))
        };
        let mut checkpoints = Vec::new();
        for guard in self.streams.iter() {
            match read(guard) {
                Some(checkpoint) => checkpoints.push(checkpoint),
                None => tracing::warn!("checkpoint skipped: unreadable"),
            }
        }
        checkpoints
    }

    /// The record of an instance. `None`: there is none, or it cannot be read.
    pub fn get(&self, key: &InstanceKey) -> Option<Checkpoint> {
        let value = self.streams.get(encode(key)).ok()??;
        serde_json::from_slice(&value).ok()
    }

    /// Writes the record of an instance.
    ///
    /// A disk that refuses it is told and lived with: the older record leads to lines that are sent again, or to a loss that is told, never to other lines under used numbers.
    pub fn save(&self, key: &InstanceKey, checkpoint: &Checkpoint) {
        if let Err(error) = self.streams.insert(encode(key), encode(checkpoint)) {
            tracing::error!(%error, "checkpoint not written");
        }
    }

    /// Removes the record of an instance; with that of its standard output, the other's too, and from where its files are read.
    pub fn delete(&self, key: &InstanceKey) {
        let mut removed = self.streams.remove(encode(key));
        if key.fd() == Some(Fd::Out) {
            removed = removed.and(self.streams.remove(encode(&key.with_fd(Fd::Err))));
            removed = removed.and(self.file_checkpoints.remove(encode(key)));
        }
        if let Err(error) = removed {
            tracing::error!(%error, "checkpoint not removed");
        }
    }

    /// From where an instance's files are read again. `None`: it is not known, or cannot be read.
    pub fn file_checkpoint(&self, key: &InstanceKey) -> Option<FileCheckpoint> {
        let value = self.file_checkpoints.get(encode(key)).ok()??;
        serde_json::from_slice(&value).ok()
    }

    /// Writes from where an instance's files are read again.
    ///
    /// A disk that refuses it is told and lived with: from the older one more is read again, or what it says is gone and told.
    pub fn save_file_checkpoint(&self, key: &InstanceKey, file_checkpoint: &FileCheckpoint) {
        if let Err(error) = self.file_checkpoints.insert(encode(key), encode(file_checkpoint)) {
            tracing::error!(%error, "checkpoint not written");
        }
    }
}

fn try_open(dir: &Path) -> fjall::Result<CheckpointStore> {
    std::fs::create_dir_all(dir)?;
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

/// Refuses what is there and is no store: it is somebody's, and neither to be written into nor to be renamed.
fn check_contents(dir: &Path) -> Result<(), String> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) if error.kind() == ErrorKind::NotADirectory => return Err("it is not a directory".to_owned()),
        Err(error) => return Err(error.to_string()),
    };
    let mut is_empty = true;
    for entry in entries {
        let name = entry.map_err(|error| error.to_string())?.file_name();
        if name == FIRST_FILE {
            return Ok(());
        }
        // A volume's own, in its root.
        is_empty &= name == "lost+found";
    }
    if is_empty {
        Ok(())
    } else {
        Err("it holds other files, and no checkpoints".to_owned())
    }
}

/// Whether what is there was read, and makes no sense: anything else may be otherwise the next time, and is no ground to begin anew.
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

/// In words.
fn describe(error: &fjall::Error) -> String {
    use fjall::Error;
    match error {
        Error::Io(error) | Error::Storage(fjall::LsmError::Io(error)) => error.to_string(),
        Error::InvalidVersion(_) => "it was written by another version, or is damaged".to_owned(),
        error if is_unreadable(error) => "it is damaged".to_owned(),
        _ => "its disk fails".to_owned(),
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

/// As records and their keys are written.
pub fn encode(value: &impl Serialize) -> Vec<u8> {
    // Plain structs of strings and numbers: there is nothing in them that JSON cannot say.
    serde_json::to_vec(value).unwrap_or_default()
}
