//! Lists a container's directory.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use super::{
    log_file::{FileId, read_head_hash},
    path::{self, Name},
};

/// A file of an instance's log as listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedFile {
    pub name: Name,
    pub path: PathBuf,
    pub is_gz: bool,
    pub id: FileId,
}

impl ListedFile {
    /// Returns the hash that identifies the file, or `None` if it has no line yet or is gone.
    pub fn head_hash(&self) -> Option<u64> {
        read_head_hash(&self.path, self.is_gz)
    }
}

/// Returns the files of the instance with `number` predecessors in the order in which they were
/// written, or none if the directory does not exist. If a file exists both compressed and plain,
/// returns the plain one, which the node removes last.
///
/// # Errors
/// I/O errors.
pub fn list(dir: &Path, number: u32) -> io::Result<Vec<ListedFile>> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut listed: BTreeMap<Name, ListedFile> = BTreeMap::new();
    for entry in entries {
        let entry = entry?;
        let file_name = entry.file_name();
        let Some((name, is_gz)) = file_name.to_str().and_then(|name| path::parse(name, number)) else {
            continue;
        };
        let path = entry.path();
        let metadata = match std::fs::metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        if is_gz && listed.contains_key(&name) {
            continue;
        }
        let id = FileId::of(&metadata);
        listed.insert(name.clone(), ListedFile { name, path, is_gz, id });
    }
    Ok(listed.into_values().collect())
}
