//! How a disk fails.

use std::{
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    time::Duration,
};

use rand::{Rng, RngExt};

/// How a disk fails now.
#[derive(Clone, Debug, Default)]
pub struct DiskFaults {
    /// The directory that fails; the rest of the disk is another volume.
    pub dir: PathBuf,
    /// No byte can be added.
    pub full: bool,
    /// The share of writes and syncs that are refused.
    pub refused: f64,
    /// The process has no file descriptor left.
    pub no_descriptors: bool,
    /// How much longer each operation takes.
    pub slow: Duration,
}

impl DiskFaults {
    fn is_on(&self, path: &Path) -> bool {
        path.starts_with(&self.dir)
    }

    /// Returns why a write fails.
    pub(super) fn write_error(&self, path: &Path, random: &mut impl Rng) -> Option<io::Error> {
        if !self.is_on(path) {
            return None;
        }
        if self.full {
            return Some(ErrorKind::StorageFull.into());
        }
        self.is_refused(random).then(refused)
    }

    /// # Errors
    /// Why a file cannot be opened.
    pub(super) fn open_error(&self, path: &Path) -> io::Result<()> {
        if self.no_descriptors && self.is_on(path) {
            // EMFILE
            return Err(io::Error::from_raw_os_error(24));
        }
        Ok(())
    }

    /// # Errors
    /// Why a file cannot be created. A full disk can have room for a name.
    pub(super) fn create_error(&self, path: &Path, random: &mut impl Rng) -> io::Result<()> {
        if self.is_on(path) && self.full && random.random_bool(0.5) {
            return Err(ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    /// # Errors
    /// Why a sync fails.
    pub(super) fn sync_error(&self, path: &Path, random: &mut impl Rng) -> io::Result<()> {
        if self.is_on(path) && self.is_refused(random) {
            return Err(refused());
        }
        Ok(())
    }

    fn is_refused(&self, random: &mut impl Rng) -> bool {
        self.refused > 0.0 && random.random_bool(self.refused)
    }
}

fn refused() -> io::Error {
    // EIO
    io::Error::from_raw_os_error(5)
}
