//! The content of a file, and how to take back what was not synced.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use rand::{Rng, RngExt};
use system::files::Metadata;

use super::lost_of;

/// A file, whatever its name.
pub struct Inode {
    pub number: u64,
    /// Its current name.
    pub path: Mutex<PathBuf>,
    /// Something of it was read.
    is_read: AtomicBool,
    content: Mutex<Content>,
}

#[derive(Default)]
struct Content {
    bytes: Vec<u8>,
    modified: Duration,
    /// How to take back the writes since the last sync, oldest first.
    unsynced: Vec<Undo>,
}

/// What a write replaced.
struct Undo {
    /// The length before.
    len: usize,
    /// Where the write began, and what was there.
    at: usize,
    old: Vec<u8>,
}

impl Inode {
    pub fn new(number: u64, path: PathBuf) -> Arc<Self> {
        Arc::new(Self {
            number,
            path: Mutex::new(path),
            is_read: AtomicBool::new(false),
            content: Mutex::default(),
        })
    }

    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> usize {
        let content = self.content.lock();
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(content.bytes.len());
        let found = &content.bytes[from..];
        let read = found.len().min(buffer.len());
        buffer[..read].copy_from_slice(&found[..read]);
        if read > 0 {
            self.is_read.store(true, Ordering::Relaxed);
        }
        read
    }

    pub fn is_read(&self) -> bool {
        self.is_read.load(Ordering::Relaxed)
    }

    /// Writes at an offset, or at the end.
    pub fn write(&self, bytes: &[u8], offset: Option<u64>) {
        let mut content = self.content.lock();
        let len = content.bytes.len();
        let at = offset.map_or(len, |offset| usize::try_from(offset).unwrap_or(usize::MAX));
        let end = at + bytes.len();
        let old = content
            .bytes
            .get(at.min(len)..end.min(len))
            .unwrap_or_default()
            .to_vec();
        content.unsynced.push(Undo { len, at, old });
        if end > len {
            content.bytes.resize(end, 0);
        }
        content.bytes[at..end].copy_from_slice(bytes);
        content.modified = system::clock::wall();
    }

    pub fn set_len(&self, len: u64) {
        let mut content = self.content.lock();
        let before = content.bytes.len();
        let at = usize::try_from(len).unwrap_or(usize::MAX);
        let old = content.bytes.get(at..).unwrap_or_default().to_vec();
        content.unsynced.push(Undo { len: before, at, old });
        content.bytes.resize(at, 0);
        content.modified = system::clock::wall();
    }

    pub fn sync(&self) {
        self.content.lock().unsynced.clear();
    }

    pub fn metadata(&self) -> Metadata {
        let content = self.content.lock();
        Metadata {
            len: content.bytes.len() as u64,
            device: 1,
            inode: self.number,
            is_dir: false,
            modified: content.modified,
        }
    }

    pub fn damage(&self, change: impl FnOnce(&mut Vec<u8>)) {
        let mut content = self.content.lock();
        change(&mut content.bytes);
        content.unsynced.clear();
    }

    /// Takes back a random number of the last writes; of the first of them a part may stay.
    pub fn lose_power(&self, random: &mut impl Rng) {
        let mut content = self.content.lock();
        let mut lost = lost_of(content.unsynced.len(), random);
        while lost > 0
            && let Some(undo) = content.unsynced.pop()
        {
            lost -= 1;
            let end = undo.at + undo.old.len();
            let is_append = undo.old.is_empty() && undo.at == undo.len;
            if lost == 0 && is_append && random.random_bool(0.5) {
                let torn = random.random_range(undo.len..=content.bytes.len().max(undo.len));
                content.bytes.truncate(torn);
                continue;
            }
            if content.bytes.len() < end {
                content.bytes.resize(end, 0);
            }
            content.bytes[undo.at..end].copy_from_slice(&undo.old);
            content.bytes.resize(undo.len, 0);
        }
        content.unsynced.clear();
    }
}
