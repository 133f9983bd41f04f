//! A JSON file that processes change under a lock and replace atomically.

use std::{
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use system::files::{self, File, OpenOptions};

use super::content::VERSION;
use crate::error::RegistryError;

/// A JSON file with a lock file beside it.
#[derive(Clone)]
pub(super) struct LockedFile(PathBuf);

/// Metadata that differs after every replacement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileVersion {
    inode: u64,
    modified: Duration,
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
        let metadata = files::metadata(&self.0).map_err(|error| self.io_error(error))?;
        Ok(FileVersion {
            inode: metadata.inode,
            modified: metadata.modified,
            bytes: metadata.len,
        })
    }

    /// Reads the file. `None` if it does not exist.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<Option<T>, RegistryError> {
        let bytes = match files::read(&self.0) {
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
            let mut text = serde_json::to_vec_pretty(&content).map_err(|error| self.io_error(error.into()))?;
            text.push(b'\n');
            files::replace(&self.0, &text).map_err(|error| self.io_error(error))?;
        }
        Ok((result, content))
    }

    /// The lock is released on drop, and by the operating system when the process ends.
    fn lock(&self) -> io::Result<File> {
        files::create_dir_all(self.directory())?;
        let lock = OpenOptions::new()
            .create(true)
            .write(true)
            .open(&self.path_with("lock"))?;
        lock.lock()?;
        Ok(lock)
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
