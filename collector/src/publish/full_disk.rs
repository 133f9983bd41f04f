//! A disk that becomes full, or whose files cannot be opened, for tests.

use std::{
    fs,
    io::{self, IoSlice},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::Waker,
    time::Duration,
};

use system::{
    files::{DirEntry, Metadata, OpenOptions},
    simulation::{DirNotifier, Disk, Machine, Network, OpenFile, enter},
};

/// A machine whose disk is the real one with a limit of bytes that can be added.
pub struct FullDisk {
    room: Arc<AtomicU64>,
    has_no_descriptors: AtomicBool,
}

struct LimitedFile {
    file: fs::File,
    room: Arc<AtomicU64>,
}

impl FullDisk {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            room: Arc::new(AtomicU64::new(u64::MAX)),
            has_no_descriptors: AtomicBool::new(false),
        })
    }

    /// Sets whether the process has no file descriptor left.
    pub fn set_no_descriptors(&self, has_none: bool) {
        self.has_no_descriptors.store(has_none, Ordering::SeqCst);
    }

    /// Sets how many more bytes can be added to files.
    pub fn set_room(&self, bytes: u64) {
        self.room.store(bytes, Ordering::SeqCst);
    }

    fn take_descriptor(&self) -> io::Result<()> {
        if self.has_no_descriptors.load(Ordering::SeqCst) {
            // EMFILE
            return Err(io::Error::from_raw_os_error(24));
        }
        Ok(())
    }

    /// Runs code on this machine.
    pub fn run<R>(self: &Arc<Self>, code: impl FnOnce() -> R) -> R {
        let machine: Arc<dyn Machine> = Arc::<Self>::clone(self);
        enter(Some(&machine), code)
    }
}

impl Machine for FullDisk {
    fn name(&self) -> &str {
        "full-disk"
    }

    fn wall(&self) -> Duration {
        Duration::from_secs(1_790_000_000)
    }

    fn fill_random(&self, bytes: &mut [u8]) {
        bytes.fill(7);
    }

    fn io_delay(&self) -> Duration {
        Duration::ZERO
    }

    fn begin_poll(&self, _: u64, _: &Waker) -> bool {
        true
    }

    fn end_task(&self, _: u64) {}

    fn disk(&self) -> &dyn Disk {
        self
    }

    fn network(&self) -> &dyn Network {
        unreachable!("only files are used")
    }
}

impl Disk for FullDisk {
    fn open(&self, path: &Path, options: &OpenOptions) -> io::Result<Arc<dyn OpenFile>> {
        self.take_descriptor()?;
        let file = fs::OpenOptions::new()
            .read(true)
            .write(options.write || options.append)
            .create(options.create)
            .create_new(options.create_new)
            .truncate(options.truncate)
            .open(path)?;
        let room = Arc::clone(&self.room);
        Ok(Arc::new(LimitedFile { file, room }))
    }

    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        Ok(Metadata::from(&fs::metadata(path)?))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        self.take_descriptor()?;
        let mut entries = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            entries.push(DirEntry {
                name: entry.file_name().into_string().unwrap(),
                is_dir: entry.file_type()?.is_dir(),
            });
        }
        entries.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(entries)
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir_all(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir_all(path)
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn watch(&self) -> io::Result<Arc<dyn DirNotifier>> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl OpenFile for LimitedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let end = offset + bytes.len() as u64;
        let added = end.saturating_sub(self.file.metadata()?.len());
        let room = self.room.load(Ordering::SeqCst);
        let refused = added.saturating_sub(room) as usize;
        self.room.store(room - added.min(room), Ordering::SeqCst);
        self.file.write_all_at(&bytes[..bytes.len() - refused], offset)?;
        if refused > 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    fn append(&self, slices: &[IoSlice<'_>]) -> io::Result<()> {
        let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
        self.write_at(&bytes, self.file.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn metadata(&self) -> io::Result<Metadata> {
        Ok(Metadata::from(&self.file.metadata()?))
    }

    fn try_lock(&self) -> io::Result<bool> {
        Ok(self.file.try_lock().is_ok())
    }
}

/// Returns the paths in a directory, sorted.
pub fn paths(dir: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}
