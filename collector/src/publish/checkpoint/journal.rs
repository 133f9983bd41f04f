//! The journal: the newest value of each entry in memory, and every change appended to a file.
//!
//! The file `checkpoints.N` is generation N. When it has grown to several times the size of the
//! entries, or after a failed write, all entries are written to the file of generation N+1 under a
//! temporary name, synced and renamed; then generation N is removed. So each moment leaves at least
//! one whole generation, and nothing is ever written behind a record that may be incomplete. Every
//! start writes a new generation, so that what a kill has cut off need not be removed.
//!
//! Records are not synced when they are written, but every few seconds. The [`boot`] id in the
//! journal and the [`watermark`](super::watermark) beside it say whether its entries are the newest.
//!
//! A write that failed is not repeated alone: all entries are, at most once a second, until the disk
//! accepts them. Until then the last byte of the old header says that it is not the newest state, if
//! the disk accepts at least that.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use prometheus_client::metrics::counter::Counter;
use system::{
    clock::{Instant, since, steady, wall},
    files::{self, File, OpenOptions, Outage},
};

use super::{
    Damage, boot,
    record::{Entries, INCOMPLETE_AT, Record, encode_generation, record_len},
    recovery::{file_name, recover},
    watermark::{Stored, Watermark},
};

/// A smaller journal is not rewritten: it is read in milliseconds at startup, and a rewrite waits for
/// the disk, for about 10 ms. With 1 MiB these waits took most of the time of saves.
const MIN_REWRITE_BYTES: u64 = 4 << 20;

/// A journal is rewritten at this multiple of its entries, so that a rewrite costs a third of the
/// writes before it.
const REWRITE_FACTOR: u64 = 4;

/// Delay before all entries are written again after a failed write: a full disk may have room soon,
/// and each attempt writes everything.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The key of the [`boot`] id.
const BOOT: &[u8] = b"b";

/// The key of the entry that exists while entries may be damaged or missing.
const DOUBT: &[u8] = b"d";

/// The key of the entry that exists until those that may be outdated are marked.
const OUTDATED: &[u8] = b"o";

/// The entries and the file that holds them.
pub struct Journal {
    dir: PathBuf,
    entries: Entries,
    /// Bytes of the entries' records.
    live_bytes: u64,
    generation: u64,
    next_seq: u64,
    /// The file of the generation; `None` after a failed write.
    file: Option<Arc<File>>,
    /// The file's length.
    len: u64,
    /// It has records that are not synced.
    is_dirty: bool,
    watermark: Watermark,
    /// Files that the next generation replaces, and the names under which damaged ones are kept.
    obsolete: Vec<(PathBuf, Option<PathBuf>)>,
    last_attempt: Option<Instant>,
    outage: Outage,
    failures: Counter,
}

impl Journal {
    /// Reads the journal in a directory and starts a new generation. A directory that is not new must
    /// have one. Returns what was damaged; `in_doubt`: more is known to be. A disk that refuses
    /// writes is no error: see [`retry`](Self::retry).
    ///
    /// # Errors
    /// A file cannot be read. Nothing was changed.
    pub fn open(
        dir: &Path,
        (lock, is_new): (File, bool),
        in_doubt: bool,
        failures: Counter,
    ) -> std::io::Result<(Self, Option<Damage>)> {
        let mut recovered = recover(dir)?;
        let (watermark, stored) = Watermark::open(lock)?;
        let (boot, written) = (boot::current(), recovered.entries.get(BOOT));
        let is_outdated = written.is_some_and(|written| !boot::is_trusted(written, &boot));
        let reason = if recovered.newest == 0 && !is_new {
            // It was removed, or the disk has been full since the first start.
            Some("the checkpoint file is missing")
        } else if recovered.damage.is_some() {
            None
        } else if stored == Stored::Copied {
            Some("the checkpoint directory is a copy of another one")
        } else if is_outdated {
            // Nor was the lock file synced.
            None
        } else if matches!(stored, Stored::NextSeq(next_seq) if next_seq > recovered.next_seq) {
            Some("the checkpoint file is older than it was")
        } else if stored == Stored::Nothing && written.is_some() && !is_new {
            Some("the lock file is damaged")
        } else {
            None
        };
        if is_outdated {
            tracing::warn!(dir = %dir.display(), "the machine stopped before checkpoints were synced");
            recovered.entries.insert(OUTDATED.to_vec(), Vec::new());
        }
        recovered.damage = reason.map(str::to_owned).or(recovered.damage);
        if let Stored::NextSeq(next_seq) = stored {
            recovered.next_seq = recovered.next_seq.max(next_seq);
        }
        recovered.entries.insert(BOOT.to_vec(), boot);
        if in_doubt || recovered.damage.is_some() {
            recovered.entries.insert(DOUBT.to_vec(), Vec::new());
        }
        let mut obsolete = Vec::new();
        for (generation, is_damaged) in recovered.generations {
            let name = file_name(generation);
            let kept = is_damaged.then(|| dir.join(format!("{name}.set-aside-{}", wall().as_millis())));
            obsolete.push((dir.join(name), kept));
        }
        let set_aside = obsolete.iter().find_map(|(_, kept)| kept.clone());
        let damage = recovered.damage.map(|reason| Damage { reason, set_aside });
        let lens = recovered.entries.iter().map(|(key, value)| record_len(key, value));
        let mut journal = Self {
            dir: dir.to_owned(),
            live_bytes: lens.sum(),
            entries: recovered.entries,
            generation: recovered.newest,
            next_seq: recovered.next_seq,
            file: None,
            len: 0,
            is_dirty: false,
            watermark,
            obsolete,
            last_attempt: None,
            outage: Outage::default(),
            failures,
        };
        journal.start_generation();
        Ok((journal, damage))
    }

    /// Returns the entries.
    pub fn entries(&self) -> &Entries {
        &self.entries
    }

    /// Sets an entry's value. It is in memory even if the write fails.
    pub fn set(&mut self, key: Vec<u8>, value: Vec<u8>) {
        let older = self.entries.get(&key);
        if older == Some(&value) {
            return self.retry();
        }
        let older_bytes = older.map_or(0, |older| record_len(&key, older));
        self.live_bytes = self.live_bytes + record_len(&key, &value) - older_bytes;
        self.append(&key, Some(&value));
        self.entries.insert(key, value);
        self.rewrite_if_due();
    }

    /// Removes an entry.
    pub fn remove(&mut self, key: &[u8]) {
        if let Some(value) = self.entries.remove(key) {
            self.live_bytes -= record_len(key, &value);
            self.append(key, None);
            self.rewrite_if_due();
        }
    }

    /// Returns whether the last write failed.
    pub fn is_failing(&self) -> bool {
        self.file.is_none()
    }

    /// Returns whether entries may be older than what they describe.
    pub fn is_outdated(&self) -> bool {
        self.entries.contains_key(OUTDATED)
    }

    /// Every entry that may be outdated is marked.
    pub fn end_outdated(&mut self) {
        self.remove(OUTDATED);
    }

    /// Returns whether entries may be damaged or missing.
    pub fn is_in_doubt(&self) -> bool {
        self.entries.contains_key(DOUBT)
    }

    /// Every entry that may be damaged is marked, and no other one can turn up.
    pub fn end_doubt(&mut self) {
        self.remove(DOUBT);
    }

    /// Returns the file if it has records that are not synced. What is appended from now on needs
    /// another sync.
    pub fn unsynced(&mut self) -> Option<Arc<File>> {
        let is_dirty = std::mem::take(&mut self.is_dirty);
        self.file.clone().filter(|_| is_dirty)
    }

    /// A sync failed: what it left on the disk is unknown.
    pub fn sync_failed(&mut self, error: &std::io::Error) {
        self.fail(error);
    }

    /// Records that nothing is written after this and the next sync.
    pub fn shut_down(&mut self) {
        self.retry();
        self.set(BOOT.to_vec(), boot::SHUT_DOWN.to_vec());
    }

    /// Writes all entries if a write has failed and the last attempt is long enough ago.
    pub fn retry(&mut self) {
        let is_too_early = self.last_attempt.is_some_and(|at| since(at) < RETRY_AFTER);
        if self.file.is_none() && !is_too_early {
            self.start_generation();
        }
    }

    fn append(&mut self, key: &[u8], value: Option<&[u8]>) {
        let seq = self.next_seq;
        self.next_seq += 1;
        let Some(file) = &self.file else { return };
        let mut record = Vec::with_capacity(record_len(key, value.unwrap_or_default()) as usize);
        Record { seq, key, value }.encode(&mut record);
        match file.write_at(&record, self.len) {
            Ok(()) => {
                self.len += record.len() as u64;
                self.is_dirty = true;
            }
            Err(error) => {
                self.fail(&error);
                // The disk may refuse this file only.
                self.last_attempt = None;
            }
        }
        self.watermark.store(self.next_seq);
    }

    fn rewrite_if_due(&mut self) {
        if self.file.is_none() {
            self.retry();
        } else if self.len > MIN_REWRITE_BYTES.max(REWRITE_FACTOR * self.live_bytes) {
            self.start_generation();
        }
    }

    fn start_generation(&mut self) {
        match self.write_generation() {
            Ok(()) => {
                if self.outage.record_success().is_some_and(|ended| ended.was_logged) {
                    tracing::info!(dir = %self.dir.display(), "checkpoint writes work again");
                }
            }
            Err(error) => self.fail(&error),
        }
    }

    fn write_generation(&mut self) -> std::io::Result<()> {
        let path = self.path(self.generation + 1);
        let content = encode_generation(self.next_seq, &self.entries);
        files::replace(&path, &content)?;
        let file = OpenOptions::new().write(true).open(&path)?;
        if self.len > 0 {
            self.obsolete.push((self.path(self.generation), None));
        }
        self.file = Some(Arc::new(file));
        self.is_dirty = false;
        self.len = content.len() as u64;
        self.generation += 1;
        self.next_seq += self.entries.len() as u64;
        self.watermark.store(self.next_seq);
        self.obsolete.retain(|(path, kept)| {
            let done = match kept {
                Some(kept) => files::rename(path, kept),
                None => files::remove_file(path),
            };
            done.is_err_and(|error| error.kind() != std::io::ErrorKind::NotFound)
        });
        Ok(())
    }

    /// No later record is appended to a file that may end within one.
    fn fail(&mut self, error: &std::io::Error) {
        self.failures.inc();
        self.last_attempt = Some(steady());
        self.file = None;
        // The next one was renamed if what failed came after that.
        for generation in [self.generation, self.generation + 1] {
            if let Ok(file) = OpenOptions::new().write(true).open(&self.path(generation)) {
                // If the disk refuses this too, older checkpoints repeat lines or record a gap.
                let _ = file.write_at(&[1], INCOMPLETE_AT);
            }
        }
        if self.outage.record_failure(error.to_string()) {
            tracing::error!(%error, dir = %self.dir.display(), failures = self.failures.get(), "checkpoint write failed");
        }
    }

    fn path(&self, generation: u64) -> PathBuf {
        self.dir.join(file_name(generation))
    }
}
