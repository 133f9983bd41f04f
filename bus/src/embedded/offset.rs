//! How far a durable subscription is dealt with.

use std::{
    collections::HashSet,
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;

/// The file of a subscription that is being read: up to where all is dealt with.
pub(super) struct Place {
    file: File,
    _reserved: Reserved,
}

impl Place {
    /// Opens the file, and makes what it says last: the place kept in it, or where it has none that can be read, `fallback`. Better the newest than a guess.
    pub(super) fn open(path: &Path, reserved: Reserved, fallback: u64) -> io::Result<(Self, u64)> {
        let kept = fs::read_to_string(path)
            .ok()
            .and_then(|text| text.trim_ascii().parse().ok());
        let floor = kept.unwrap_or(fallback);
        let file = File::options().write(true).create(true).truncate(false).open(path)?;
        let place = Self {
            file,
            _reserved: reserved,
        };
        place.keep(floor)?;
        place.file.sync_all()?;
        Ok((place, floor))
    }

    /// Notes the place. Twenty bytes in place: a killed process leaves the old or the new; a lost machine may leave an older one, and what was accepted since
    /// comes again.
    pub(super) fn keep(&self, floor: u64) -> io::Result<()> {
        self.file.write_all_at(format!("{floor:020}").as_bytes(), 0)
    }
}

/// A subscription's place in the list of those that are being read; leaves it when dropped.
pub(super) struct Reserved {
    path: PathBuf,
    all: Arc<Mutex<HashSet<PathBuf>>>,
}

impl Reserved {
    /// `None` where another reader has it.
    pub(super) fn new(path: &Path, all: &Arc<Mutex<HashSet<PathBuf>>>) -> Option<Self> {
        let free = all.lock().insert(path.to_owned());
        free.then(|| Self {
            path: path.to_owned(),
            all: Arc::clone(all),
        })
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.all.lock().remove(&self.path);
    }
}
