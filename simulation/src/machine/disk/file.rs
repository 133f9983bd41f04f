//! An open file.

use std::{
    io::{self, ErrorKind, IoSlice},
    path::PathBuf,
    sync::Arc,
};

use system::{
    files::{DirEventKind, Metadata, OpenOptions},
    simulation::OpenFile,
};

use super::{Disk, content::Inode};
use crate::machine::process::Process;

pub struct Handle {
    disk: Arc<Disk>,
    inode: Arc<Inode>,
    process: Arc<Process>,
    is_writable: bool,
}

impl Handle {
    pub fn new(disk: Arc<Disk>, inode: Arc<Inode>, process: Arc<Process>, options: &OpenOptions) -> Self {
        Self {
            disk,
            inode,
            process,
            is_writable: options.write || options.append,
        }
    }

    fn path(&self) -> PathBuf {
        self.inode.path.lock().clone()
    }

    /// Writes at an offset or at the end; of a write that fails, a part.
    fn write(&self, bytes: &[u8], offset: Option<u64>) -> io::Result<()> {
        self.process.durable_step()?;
        if !self.is_writable {
            return Err(ErrorKind::PermissionDenied.into());
        }
        let path = self.path();
        let (written, result) = match self.disk.admit(&path, bytes.len()) {
            Ok(()) => (bytes.len(), Ok(())),
            Err((written, error)) => (written, Err(error)),
        };
        if written > 0 {
            self.inode.write(&bytes[..written], offset);
            self.disk.watches.emit(&path, DirEventKind::Written);
        }
        result
    }
}

impl OpenFile for Handle {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.process.check_alive()?;
        Ok(self.inode.read_at(buffer, offset))
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write(bytes, Some(offset))
    }

    fn append(&self, slices: &[IoSlice<'_>]) -> io::Result<()> {
        let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        self.write(&bytes, None)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.process.durable_step()?;
        self.inode.set_len(len);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.process.durable_step()?;
        let random = &mut self.disk.random.lock();
        self.disk.faults.lock().sync_error(&self.path(), &mut **random)?;
        self.inode.sync();
        Ok(())
    }

    fn metadata(&self) -> io::Result<Metadata> {
        self.process.check_alive()?;
        Ok(self.inode.metadata())
    }

    fn try_lock(&self) -> io::Result<bool> {
        self.process.check_alive()?;
        Ok(self.disk.try_lock(self.inode.number, self.process.id))
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.disk.unlock(self.inode.number, self.process.id);
        if self.is_writable {
            self.disk.watches.emit(&self.path(), DirEventKind::Closed);
        }
    }
}
