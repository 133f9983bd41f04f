//! Gives spooled entries a checkpoint if theirs is lost, so that they are published.
//!
//! Without it the entries would belong to no stream. The checkpoint is that of the oldest entry's
//! stream, and says that the lines before it may be on the bus but cannot be found in the log.

use std::{io, path::Path};

use bus::{Content, StreamMetadata};
use system::files;

use super::{
    OWNER_FILE, Spool,
    segments::{first_entry, is_newer, numbers},
};
use crate::{
    anchor::{Anchor, ResumePoint},
    instance::InstanceKey,
    publish::{
        checkpoint::{Checkpoint, CheckpointStore, StreamStart},
        entry::OutboxEntry,
        gap::time_range,
    },
};

impl Spool {
    /// Saves a checkpoint for each spooled stream that has none. What cannot be attributed to a
    /// stream is kept with a warning.
    pub(super) fn adopt_orphans(&self, checkpoints: &CheckpointStore) -> io::Result<()> {
        let entries = match files::list(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        for entry in entries.into_iter().filter(|entry| entry.is_dir) {
            self.adopt(&self.dir.join(entry.name), checkpoints)?;
        }
        Ok(())
    }

    fn adopt(&self, dir: &Path, checkpoints: &CheckpointStore) -> io::Result<()> {
        if numbers(dir)?.is_empty() {
            // Nothing was written into it.
            return files::remove_dir_all(dir);
        }
        let (first, unreadable) = first_entry(dir)?;
        let owner = files::read(&dir.join(OWNER_FILE)).ok();
        let owner = owner.and_then(|key| serde_json::from_slice::<InstanceKey>(&key).ok());
        let key = owner.or_else(|| first.as_ref().and_then(|first| key_of(metadata(first))));
        let Some(key) = key.filter(|key| self.is_or_becomes_dir_of(dir, key)) else {
            tracing::warn!(dir = %dir.display(), "spool of an unknown stream kept, its lines cannot be published");
            return Ok(());
        };
        let stored = checkpoints.get(&key).filter(|stored| stored.metadata().is_some());
        let Some(first) = first else {
            if stored.is_none() {
                tracing::warn!(dir = %dir.display(), "spool unreadable, its lines cannot be published");
            }
            return Ok(());
        };
        let is_ahead = stored.as_ref().is_some_and(|stored| is_newer(metadata(&first), stored));
        match stored {
            Some(stored) if stored.ended && !is_ahead => files::remove_dir_all(&self.dir_of(&key)),
            // The entry itself replaces the checkpoint.
            Some(_) if !is_ahead || matches!(first, OutboxEntry::Start(..)) => Ok(()),
            stored => {
                let stream = &metadata(&first).stream;
                tracing::warn!(dir = %dir.display(), %stream, "checkpoint of spooled lines missing, publishing them");
                let mut checkpoint = checkpoint_before(&first, stored.as_ref());
                checkpoint.doubtful |= checkpoints.is_in_doubt();
                checkpoints.save(&key, &checkpoint);
                // Nothing proves that the first entry does not follow them.
                let paths = unreadable.iter().filter_map(|path| path.file_name());
                paths.for_each(|name| drop(files::remove_file(&self.dir_of(&key).join(name))));
                Ok(())
            }
        }
    }

    /// Returns whether the directory is that of the instance; renames it if there is no other.
    fn is_or_becomes_dir_of(&self, dir: &Path, key: &InstanceKey) -> bool {
        let own = self.dir_of(key);
        own == dir || (files::metadata(&own).is_err() && files::rename(dir, &own).is_ok())
    }
}

/// Returns a checkpoint of the entry's stream before the entry.
fn checkpoint_before(entry: &OutboxEntry, older: Option<&Checkpoint>) -> Checkpoint {
    let metadata = metadata(entry);
    let mut checkpoint = match older {
        Some(older) => older.for_new_epoch(metadata, StreamStart::default()),
        None => Checkpoint::new(metadata),
    };
    if let OutboxEntry::Batch(batch, _) | OutboxEntry::Finish(batch) = entry {
        let from = match &batch.content {
            Content::Gap(gap) => gap.from,
            _ => time_range(batch.data()).0,
        };
        let time = from.map_or(i64::MIN, |from| from.0);
        // No line has the ordinal 0: numbers below this one are never used again, whatever the log
        // contains.
        let anchor = Anchor {
            time,
            high: time,
            ordinal: 0,
            hash: 0,
        };
        let seq_end = batch.seq;
        checkpoint.sent = (seq_end > 0).then_some(ResumePoint { seq_end, anchor });
    }
    checkpoint
}

/// Returns the metadata of an entry's stream.
fn metadata(entry: &OutboxEntry) -> &StreamMetadata {
    match entry {
        OutboxEntry::Batch(batch, _) | OutboxEntry::Finish(batch) => &batch.metadata,
        OutboxEntry::Start(metadata, _) => metadata,
    }
}

/// Returns the instance that a stream id names.
fn key_of(metadata: &StreamMetadata) -> Option<InstanceKey> {
    let mut parts = metadata.stream.as_str().split('/').map(str::to_owned);
    Some(InstanceKey {
        pod_uid: parts.next()?,
        container: parts.next()?,
        container_id: parts.next()?,
    })
}
