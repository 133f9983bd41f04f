//! A JSON file that processes change under a lock and replace atomically.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::content::VERSION;
use crate::error::RegistryError;

/// A JSON file with a lock file beside it.
#[derive(Clone)]
pub(super) struct LockedFile(PathBuf);

/// Metadata that differs after every replacement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileVersion {
    inode: u64,
    modified: (i64, i64),
    bytes: u64,
}

impl LockedFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// The file with this extension appended to the path.
    pub(super) fn sibling(&self, extension: &str) -> Self {
        Self(self.path_with(extension))
    }

    fn path_with(&self, extension: &str) -> PathBuf {
        let mut path = self.0.clone().into_os_string();
        path.push(".");
        path.push(extension);
        path.into()
    }

    fn io_error(&self, source: io::Error) -> RegistryError {
        RegistryError::Io {
            path: self.0.clone(),
            source,
        }
    }

    /// The current version of the file.
    pub(super) fn version(&self) -> Result<FileVersion, RegistryError> {
        let metadata = fs::metadata(&self.0).map_err(|error| self.io_error(error))?;
        Ok(FileVersion {
            inode: metadata.ino(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            bytes: metadata.len(),
        })
    }

    /// Reads the file. `None` if it does not exist.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<Option<T>, RegistryError> {
        let bytes = match fs::read(&self.0) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.io_error(error)),
        };
        let corrupt = |error: serde_json::Error| match other_version(&bytes) {
            Some(found) => RegistryError::Version {
                path: self.0.clone(),
                found,
                expected: VERSION,
            },
            // The position only: the surrounding text may contain secrets.
            None => RegistryError::Corrupt {
                path: self.0.clone(),
                reason: format!(
                    "{} at line {}, column {}",
                    describe(&error),
                    error.line(),
                    error.column()
                ),
            },
        };
        serde_json::from_slice(&bytes).map(Some).map_err(corrupt)
    }

    /// Changes the content under the lock, starting from `initial` if there is no file. The file is
    /// written unless `change` fails or returns `false`.
    pub(super) fn update<T: Serialize + DeserializeOwned, R>(
        &self,
        initial: impl FnOnce() -> T,
        change: impl FnOnce(&mut T) -> Result<(R, bool), RegistryError>,
    ) -> Result<(R, T), RegistryError> {
        let _locked = self.lock().map_err(|error| self.io_error(error))?;
        let mut content = self.read()?.unwrap_or_else(initial);
        let (result, changed) = change(&mut content)?;
        if changed {
            let text = serde_json::to_vec_pretty(&content).map_err(|error| self.io_error(error.into()))?;
            self.replace(&text).map_err(|error| self.io_error(error))?;
        }
        Ok((result, content))
    }

    /// The lock is released on drop, and by the operating system when the process ends.
    fn lock(&self) -> io::Result<File> {
        fs::create_dir_all(self.directory())?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(PRIVATE)
            .open(self.path_with("lock"))?;
        lock.lock()?;
        Ok(lock)
    }

    fn replace(&self, text: &[u8]) -> io::Result<()> {
        // `tempfile` creates it with mode 0600.
        let mut new_file = tempfile::NamedTempFile::new_in(self.directory())?;
        new_file.write_all(text)?;
        new_file.write_all(b"\n")?;
        new_file.as_file().sync_all()?;
        new_file.persist(&self.0)?;
        File::open(self.directory())?.sync_all()
    }

    fn directory(&self) -> &Path {
        match self.0.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        }
    }
}

/// Returns the format version of a file, if it is another one than [`VERSION`].
fn other_version(bytes: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Versioned {
        version: String,
    }
    let Versioned { version } = serde_json::from_slice(bytes).ok()?;
    let is_token = version.len() <= 60
        && version
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
    (version != VERSION && is_token).then_some(version)
}

fn describe(error: &serde_json::Error) -> &'static str {
    match error.classify() {
        serde_json::error::Category::Eof => "the JSON ends early",
        serde_json::error::Category::Data => "the JSON is not a registry's",
        _ => "not a registry file, invalid JSON",
    }
}

/// Readable by the owner only, like the files beside it, which contain secrets.
const PRIVATE: u32 = 0o600;
