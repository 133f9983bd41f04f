//! A simulated machine with a disk in memory and no network.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use system::files::{DirEntry, Metadata, OpenOptions};
use system::simulation::{DirNotifier, Disk, Machine, Network, OpenFile};
use tokio::time::Instant;

/// A machine whose wall clock starts at the same time in each run.
pub struct TestMachine {
    start: Instant,
    random: Mutex<StdRng>,
    disk: TestDisk,
}

impl TestMachine {
    /// Creates a machine; call it within a tokio runtime whose time is paused.
    pub fn new(seed: u64) -> Self {
        Self {
            start: Instant::now(),
            random: Mutex::new(StdRng::seed_from_u64(seed)),
            disk: TestDisk::default(),
        }
    }

    /// Returns the content of all files, sorted by path.
    pub fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let state = self.disk.0.lock();
        let content = |(path, file): (&PathBuf, &Arc<TestFile>)| (path.clone(), file.0.lock().clone());
        state.files.iter().map(content).collect()
    }
}

impl Machine for TestMachine {
    fn name(&self) -> &str {
        "node"
    }

    fn wall(&self) -> Duration {
        Duration::from_secs(1_790_000_000) + self.start.elapsed()
    }

    fn fill_random(&self, bytes: &mut [u8]) {
        self.random.lock().fill_bytes(bytes);
    }

    fn io_delay(&self) -> Duration {
        Duration::from_millis(1)
    }

    fn begin_poll(&self, _: u64, _: &Waker) -> bool {
        true
    }

    fn end_task(&self, _: u64) {}

    fn disk(&self) -> &dyn Disk {
        &self.disk
    }

    fn network(&self) -> &dyn Network {
        panic!("the machine has no network")
    }
}

#[derive(Default)]
struct TestDisk(Mutex<DiskState>);

#[derive(Default)]
struct DiskState {
    files: BTreeMap<PathBuf, Arc<TestFile>>,
    dirs: BTreeSet<PathBuf>,
}

struct TestFile(Mutex<Vec<u8>>);

fn not_found<T>() -> io::Result<T> {
    Err(io::ErrorKind::NotFound.into())
}

impl Disk for TestDisk {
    fn open(&self, path: &Path, options: &OpenOptions) -> io::Result<Arc<dyn OpenFile>> {
        let mut state = self.0.lock();
        if let Some(file) = state.files.get(path) {
            let exists = || Err(io::ErrorKind::AlreadyExists.into());
            return if options.create_new { exists() } else { Ok(file.clone()) };
        }
        if !(options.create || options.create_new) || !state.dirs.contains(path.parent().unwrap()) {
            return not_found();
        }
        let file = Arc::new(TestFile(Mutex::default()));
        state.files.insert(path.to_owned(), file.clone());
        Ok(file)
    }

    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        let file = self.0.lock().files.get(path).cloned();
        file.map_or_else(not_found, |file| file.metadata())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let state = self.0.lock();
        let files = state.files.keys().filter(|path| path.parent() == Some(dir));
        let entry = |path: &PathBuf| DirEntry {
            name: path.file_name().unwrap().to_str().unwrap().to_owned(),
            is_dir: false,
        };
        Ok(files.map(entry).collect())
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let ancestors = dir.ancestors().map(Path::to_owned);
        self.0.lock().dirs.extend(ancestors);
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        let file = state.files.remove(from).map_or_else(not_found, Ok)?;
        state.files.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let removed = self.0.lock().files.remove(path);
        removed.map_or_else(not_found, |_| Ok(()))
    }

    fn remove_dir(&self, _: &Path) -> io::Result<()> {
        not_found()
    }

    fn remove_dir_all(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.files.retain(|path, _| !path.starts_with(dir));
        state.dirs.retain(|path| !path.starts_with(dir));
        Ok(())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn watch(&self) -> io::Result<Arc<dyn DirNotifier>> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl OpenFile for TestFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let content = self.0.lock();
        let rest = content.get(usize::try_from(offset).unwrap()..).unwrap_or_default();
        let read = rest.len().min(buffer.len());
        buffer[..read].copy_from_slice(&rest[..read]);
        Ok(read)
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn append(&self, slices: &[IoSlice<'_>]) -> io::Result<()> {
        let mut content = self.0.lock();
        slices.iter().for_each(|slice| content.extend_from_slice(slice));
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.lock().resize(usize::try_from(len).unwrap(), 0);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn metadata(&self) -> io::Result<Metadata> {
        Ok(Metadata {
            len: self.0.lock().len() as u64,
            device: 1,
            inode: 1,
            is_dir: false,
            modified: Duration::ZERO,
        })
    }

    fn try_lock(&self) -> io::Result<bool> {
        Ok(true)
    }
}
