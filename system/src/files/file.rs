//! An open file. All reads and writes say where, so that one file can be shared by readers.

use std::{
    fs,
    io::{self, IoSlice, Write},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
};

#[cfg(feature = "simulation")]
use std::sync::Arc;

use super::Metadata;

/// How a file is opened. New files have mode 0600.
#[derive(Clone, Copy, Debug, Default)]
#[allow(clippy::struct_excessive_bools, reason = "the flags of open(2)")]
pub struct OpenOptions {
    /// Open for reading.
    pub read: bool,
    /// Open for writing.
    pub write: bool,
    /// Open for appending.
    pub append: bool,
    /// Create the file if it does not exist.
    pub create: bool,
    /// Create the file; fail if it exists.
    pub create_new: bool,
    /// Empty the file.
    pub truncate: bool,
}

/// Defines the setters, which read like those of `std::fs::OpenOptions`.
macro_rules! setters {
    ($($name:ident)*) => {
        $(
            #[doc = concat!("Sets `", stringify!($name), "`.")]
            #[must_use]
            pub fn $name(mut self, $name: bool) -> Self {
                self.$name = $name;
                self
            }
        )*
    };
}

impl OpenOptions {
    /// Creates options in which nothing is set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    setters! { read write append create create_new truncate }

    /// Opens a file.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open(self, path: &Path) -> io::Result<File> {
        #[cfg(feature = "simulation")]
        if let Some(machine) = crate::simulation::current() {
            return Ok(File(Repr::Simulated(machine.disk().open(path, &self)?)));
        }
        let file = fs::OpenOptions::new()
            .read(self.read)
            .write(self.write)
            .append(self.append)
            .create(self.create)
            .create_new(self.create_new)
            .truncate(self.truncate)
            .mode(0o600)
            .open(path)?;
        #[cfg(feature = "simulation")]
        return Ok(File(Repr::Real(file)));
        #[cfg(not(feature = "simulation"))]
        Ok(File(file))
    }
}

/// An open file.
pub struct File(Repr);

#[cfg(not(feature = "simulation"))]
type Repr = fs::File;

#[cfg(feature = "simulation")]
enum Repr {
    Real(fs::File),
    Simulated(Arc<dyn crate::simulation::OpenFile>),
}

/// Calls the simulated file, or evaluates an expression with the real one.
macro_rules! on {
    ($self:ident, simulated $simulated:ident => $call:expr, real $file:ident => $real:expr) => {{
        #[cfg(feature = "simulation")]
        return match &$self.0 {
            Repr::Simulated($simulated) => $call,
            Repr::Real($file) => $real,
        };
        #[cfg(not(feature = "simulation"))]
        {
            let $file = &$self.0;
            $real
        }
    }};
}

impl File {
    /// Opens an existing file for reading.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open(path: &Path) -> io::Result<Self> {
        OpenOptions::new().read(true).open(path)
    }

    /// Reads at an offset and returns the number of bytes, 0 at the end.
    ///
    /// # Errors
    /// The disk refused it.
    #[inline]
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        on!(self, simulated file => file.read_at(buffer, offset), real file => file.read_at(buffer, offset))
    }

    /// Fills the buffer from an offset.
    ///
    /// # Errors
    /// `UnexpectedEof` if the file is shorter.
    pub fn read_exact_at(&self, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
        while !buffer.is_empty() {
            match self.read_at(buffer, offset) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => {
                    buffer = &mut buffer[read..];
                    offset += read as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Writes all bytes at an offset.
    ///
    /// # Errors
    /// The disk refused it; a part may be written.
    #[inline]
    pub fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        on!(self, simulated file => file.write_at(bytes, offset), real file => file.write_all_at(bytes, offset))
    }

    /// Appends all slices to a file that was opened for appending.
    ///
    /// # Errors
    /// The disk refused it; a part may be written.
    #[inline]
    pub fn append(&self, slices: &mut [IoSlice<'_>]) -> io::Result<()> {
        on!(self, simulated file => file.append(slices), real file => append_all(file, slices))
    }

    /// Sets the length.
    ///
    /// # Errors
    /// The disk refused it.
    pub fn set_len(&self, len: u64) -> io::Result<()> {
        on!(self, simulated file => file.set_len(len), real file => file.set_len(len))
    }

    /// Makes the content and the length durable.
    ///
    /// # Errors
    /// The disk refused it. What is durable is unknown: a second call does not make up for it.
    #[inline]
    pub fn sync(&self) -> io::Result<()> {
        on!(self, simulated file => file.sync(), real file => file.sync_data())
    }

    /// Returns the metadata.
    ///
    /// # Errors
    /// The disk refused it.
    pub fn metadata(&self) -> io::Result<Metadata> {
        on!(self, simulated file => file.metadata(), real file => Ok(Metadata::from(&file.metadata()?)))
    }

    /// Locks the file until it is closed; the operating system unlocks it when the process ends.
    /// Returns whether it is locked now; if not, another process has locked it.
    ///
    /// # Errors
    /// The file system has no locks.
    pub fn try_lock(&self) -> io::Result<bool> {
        on!(self, simulated file => file.try_lock(), real file => match file.try_lock() {
            Ok(()) => Ok(true),
            Err(fs::TryLockError::WouldBlock) => Ok(false),
            Err(fs::TryLockError::Error(error)) => Err(error),
        })
    }

    /// Locks the file as [`File::try_lock`] does; blocks while another process has locked it.
    ///
    /// # Errors
    /// The file system has no locks; in a simulation also that another process has locked it.
    pub fn lock(&self) -> io::Result<()> {
        on!(self,
            simulated file => if file.try_lock()? { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) },
            real file => file.lock())
    }
}

fn append_all(mut file: &fs::File, mut slices: &mut [IoSlice<'_>]) -> io::Result<()> {
    while !slices.is_empty() {
        match file.write_vectored(slices) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut slices, written),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Reads a file from its beginning.
pub struct Reader {
    file: File,
    offset: u64,
}

impl Reader {
    /// Creates a reader at offset 0.
    pub fn new(file: File) -> Self {
        Self { file, offset: 0 }
    }

    /// Returns the file.
    pub fn file(&self) -> &File {
        &self.file
    }
}

impl io::Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.offset)?;
        self.offset += read as u64;
        Ok(read)
    }
}
