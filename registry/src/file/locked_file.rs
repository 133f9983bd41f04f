//! A file that is read as a whole and replaced as a whole.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use serde::{Serialize, de::DeserializeOwned};

use crate::RegistryError;

/// Where a file is.
#[derive(Clone)]
pub(super) struct Place(PathBuf);

/// What a file looks like from outside: it differs after every replacement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    inode: u64,
    modified: (i64, i64),
    bytes: u64,
}

impl Place {
    pub(super) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// The file that belongs to this one.
    pub(super) fn beside(&self, what: &str) -> Self {
        Self(self.with(what))
    }

    fn with(&self, ending: &str) -> PathBuf {
        let mut path = self.0.clone().into_os_string();
        path.push(".");
        path.push(ending);
        path.into()
    }

    fn failed(&self, source: io::Error) -> RegistryError {
        RegistryError::Store {
            path: self.0.clone(),
            source,
        }
    }

    /// How it looks just now.
    pub(super) fn look(&self) -> Result<Seen, RegistryError> {
        let found = fs::metadata(&self.0).map_err(|error| self.failed(error))?;
        Ok(Seen {
            inode: found.ino(),
            modified: (found.mtime(), found.mtime_nsec()),
            bytes: found.len(),
        })
    }

    /// What stands in it. `None` where there is no file.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<Option<T>, RegistryError> {
        let bytes = match fs::read(&self.0) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.failed(error)),
        };
        // Never with the text around the mistake: secrets stand there.
        let damaged = |error: serde_json::Error| RegistryError::Damaged {
            path: self.0.clone(),
            reason: format!("line {}, column {}: {}", error.line(), error.column(), class(&error)),
        };
        serde_json::from_slice(&bytes).map(Some).map_err(damaged)
    }

    /// Changes it under the lock that all processes share, beginning with `begin` where there is no file. It stays as it is where `change` fails, or says `false`.
    pub(super) fn change<T: Serialize + DeserializeOwned, R>(
        &self,
        begin: impl FnOnce() -> T,
        change: impl FnOnce(&mut T) -> Result<(R, bool), RegistryError>,
    ) -> Result<(R, T), RegistryError> {
        let _locked = self.lock().map_err(|error| self.failed(error))?;
        let mut content = self.read()?.unwrap_or_else(begin);
        let (done, changed) = change(&mut content)?;
        if changed {
            let text = serde_json::to_vec_pretty(&content).map_err(|error| self.failed(error.into()))?;
            self.replace(&text).map_err(|error| self.failed(error))?;
        }
        Ok((done, content))
    }

    /// Held until dropped; the system gives it back when a process dies.
    fn lock(&self) -> io::Result<File> {
        fs::create_dir_all(self.directory())?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(PRIVATE)
            .open(self.with("lock"))?;
        lock.lock()?;
        Ok(lock)
    }

    fn replace(&self, text: &[u8]) -> io::Result<()> {
        // Made readable by its owner alone.
        let mut fresh = tempfile::NamedTempFile::new_in(self.directory())?;
        fresh.write_all(text)?;
        fresh.write_all(b"\n")?;
        fresh.as_file().sync_all()?;
        fresh.persist(&self.0)?;
        File::open(self.directory())?.sync_all()
    }

    fn directory(&self) -> &Path {
        match self.0.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        }
    }
}

fn class(error: &serde_json::Error) -> &'static str {
    match error.classify() {
        serde_json::error::Category::Eof => "it ends too early",
        serde_json::error::Category::Data => "not what a registry holds",
        _ => "not JSON",
    }
}

/// Its owner's alone: it holds secrets.
const PRIVATE: u32 = 0o600;
