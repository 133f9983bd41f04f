//! The stored offset of a durable subscription.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;
use system::{
    collections::HashSet,
    files::{self, File, OpenOptions},
};

/// The offset file of a subscription that is being read: the key up to which all batches are
/// acknowledged.
pub(super) struct Offset {
    file: File,
    _reservation: Reservation,
}

impl Offset {
    /// Opens the file and returns the stored offset, or `fallback` if there is none or it is
    /// unreadable. The file is durable when this returns.
    pub(super) fn open(path: &Path, reservation: Reservation, fallback: u64) -> io::Result<(Self, u64)> {
        let text = files::read(path).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let stored = text.and_then(|text| text.trim_ascii().parse().ok());
        let acked = stored.unwrap_or(fallback);
        let file = OpenOptions::new().write(true).create(true).open(path)?;
        let offset = Self {
            file,
            _reservation: reservation,
        };
        offset.store(acked)?;
        offset.file.sync()?;
        Ok((offset, acked))
    }

    /// Stores the offset, without a sync. After a crash of the process the file holds the old or
    /// the new value; after a crash of the machine possibly an older one, and batches acknowledged
    /// since are redelivered.
    pub(super) fn store(&self, acked: u64) -> io::Result<()> {
        self.file.write_at(format!("{acked:020}").as_bytes(), 0)
    }
}

/// Reserves a subscription for one reader until it is dropped.
pub(super) struct Reservation {
    path: PathBuf,
    all: Arc<Mutex<HashSet<PathBuf>>>,
}

impl Reservation {
    /// Reserves the subscription of this file; `None` if it has a reader.
    pub(super) fn new(path: &Path, all: &Arc<Mutex<HashSet<PathBuf>>>) -> Option<Self> {
        let free = all.lock().insert(path.to_owned());
        free.then(|| Self {
            path: path.to_owned(),
            all: Arc::clone(all),
        })
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.all.lock().remove(&self.path);
    }
}
