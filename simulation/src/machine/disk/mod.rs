//! A disk in memory: what a crash of the machine takes back, and how it fails.
//!
//! A killed process loses nothing that it wrote. A machine that loses power loses what was not
//! synced: of each file a random number of the last writes, of each directory a random number of
//! the last changes of names.

mod content;
mod faults;
mod file;
mod names;
mod watch;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};
use system::{
    files::{DirEntry, DirEventKind, Metadata, OpenOptions},
    simulation::{DirNotifier, OpenFile},
};

use super::process::Process;
pub use faults::DiskFaults;
use file::Handle;
use names::{Entry, Names};
use watch::Watches;

/// A disk.
pub struct Disk {
    names: Mutex<Names>,
    watches: Arc<Watches>,
    faults: Mutex<DiskFaults>,
    random: Mutex<StdRng>,
    locks: Mutex<Vec<(u64, u64)>>,
}

impl Disk {
    /// Creates an empty disk.
    pub fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self {
            names: Mutex::default(),
            watches: Arc::default(),
            faults: Mutex::default(),
            random: Mutex::new(StdRng::seed_from_u64(seed)),
            locks: Mutex::default(),
        })
    }

    /// Changes the faults.
    pub fn set_faults(&self, change: impl FnOnce(&mut DiskFaults)) {
        change(&mut self.faults.lock());
    }

    /// Returns the additional time that an operation takes.
    pub fn slowness(&self) -> Duration {
        self.faults.lock().slow
    }

    /// Takes back what was not synced below a directory, as a loss of power does. The containers of
    /// the node go on, so their log files must not lose lines.
    pub fn lose_power(&self, below: &Path) {
        let mut random = self.random.lock();
        let mut names = self.names.lock();
        names.lose_power(below, &mut random);
        for inode in names.inodes(below) {
            inode.lose_power(&mut random);
        }
    }

    /// Writes a file that the kernel provides.
    ///
    /// # Errors
    /// A file has the name of a directory above it.
    pub fn provide(&self, path: &Path, content: &str) -> io::Result<()> {
        let mut names = self.names.lock();
        names.create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
        let inode = match names.inode(path) {
            Ok(inode) => inode,
            Err(_) => names.create(path)?,
        };
        inode.damage(|bytes| *bytes = content.as_bytes().to_vec());
        Ok(())
    }

    /// Returns the files below a directory, sorted by path.
    pub fn files(&self, below: &Path) -> Vec<(PathBuf, u64)> {
        self.names.lock().files(below)
    }

    /// Returns whether a process has read something of a file.
    pub fn is_read(&self, path: &Path) -> bool {
        self.names.lock().inode(path).is_ok_and(|inode| inode.is_read())
    }

    /// Changes the content of a file behind the back of its user. Returns whether there is one.
    pub fn damage(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) -> bool {
        let found = self.names.lock().inode(path);
        found.map(|inode| inode.damage(change)).is_ok()
    }

    /// Removes a file behind the back of its user. Returns whether there was one.
    pub fn remove(&self, path: &Path) -> bool {
        self.remove_file(path).is_ok()
    }

    /// Unlocks the files of a process.
    pub fn unlock_all(&self, process: u64) {
        self.locks.lock().retain(|(_, owner)| *owner != process);
    }

    fn try_lock(&self, inode: u64, process: u64) -> bool {
        let mut locks = self.locks.lock();
        match locks.iter().find(|(locked, _)| *locked == inode) {
            Some((_, owner)) => *owner == process,
            None => {
                locks.push((inode, process));
                true
            }
        }
    }

    fn unlock(&self, inode: u64, process: u64) {
        self.locks.lock().retain(|lock| *lock != (inode, process));
    }

    /// Returns whether `bytes` bytes can be written; if not, how many of them are, and the error.
    fn admit(&self, path: &Path, bytes: usize) -> Result<(), (usize, io::Error)> {
        let random = &mut *self.random.lock();
        match self.faults.lock().write_error(path, random) {
            None => Ok(()),
            Some(error) => Err((random.random_range(0..bytes.max(1)), error)),
        }
    }

    pub(super) fn open(
        self: &Arc<Self>,
        path: &Path,
        options: &OpenOptions,
        process: &Arc<Process>,
    ) -> io::Result<Arc<dyn OpenFile>> {
        self.faults.lock().open_error(path)?;
        let mut names = self.names.lock();
        let inode = match names.get(path) {
            Some(Entry::Dir) => return Err(io::ErrorKind::IsADirectory.into()),
            Some(Entry::File(_)) if options.create_new => return Err(io::ErrorKind::AlreadyExists.into()),
            Some(Entry::File(inode)) => Arc::clone(inode),
            None if options.create || options.create_new => {
                self.faults.lock().create_error(path, &mut self.random.lock())?;
                let inode = names.create(path)?;
                drop(names);
                self.watches.emit(path, DirEventKind::Renamed);
                inode
            }
            None => return Err(io::ErrorKind::NotFound.into()),
        };
        if options.truncate {
            inode.set_len(0);
        }
        Ok(Arc::new(Handle::new(
            Arc::clone(self),
            inode,
            Arc::clone(process),
            options,
        )))
    }

    pub(super) fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        match self.names.lock().get(path) {
            Some(Entry::File(inode)) => Ok(inode.metadata()),
            Some(Entry::Dir) => Ok(names::DIR_METADATA),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    pub(super) fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        self.faults.lock().open_error(dir)?;
        self.names.lock().list(dir)
    }

    pub(super) fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.names.lock().create_dir_all(dir)
    }

    pub(super) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.names.lock().rename(from, to)?;
        self.watches.emit(from, DirEventKind::Renamed);
        self.watches.emit(to, DirEventKind::Renamed);
        Ok(())
    }

    pub(super) fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.names.lock().remove_file(path)?;
        self.watches.emit(path, DirEventKind::Renamed);
        Ok(())
    }

    pub(super) fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.names.lock().remove_dir(path)?;
        self.watches.remove_dir(path);
        Ok(())
    }

    pub(super) fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let removed = self.names.lock().remove_dir_all(path)?;
        for dir in removed {
            self.watches.remove_dir(&dir);
        }
        Ok(())
    }

    pub(super) fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.faults.lock().sync_error(dir, &mut self.random.lock())?;
        self.names.lock().sync_dir(dir)
    }

    pub(super) fn watch(&self) -> Arc<dyn DirNotifier> {
        self.watches.notifier()
    }
}

/// Draws how many of `count` last operations are lost.
fn lost_of(count: usize, random: &mut impl Rng) -> usize {
    random.random_range(0..=count)
}
