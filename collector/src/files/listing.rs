//! Lists a container's directory.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use system::files;

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

/// Returns the number of predecessors of the newest instance that has a file in a container's
/// directory; `None` if there is no file or no directory.
pub fn newest_number(dir: &Path) -> Option<u32> {
    let entries = files::list(dir).ok()?;
    let numbers = entries
        .iter()
        .filter_map(|entry| entry.name.split_once(".log")?.0.parse().ok());
    numbers.max()
}

/// Returns the files of the instance with `number` predecessors in the order of their names, or none if the directory does not exist. If a file exists both compressed and plain,
/// returns the plain one, which the node removes last.
///
/// # Errors
/// I/O errors.
pub fn list(dir: &Path, number: u32) -> io::Result<Vec<ListedFile>> {
    let entries = match files::list(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut listed: BTreeMap<Name, ListedFile> = BTreeMap::new();
    for entry in entries {
        let Some((name, is_gz)) = path::parse(&entry.name, number) else {
            continue;
        };
        let path = dir.join(&entry.name);
        // Of the target if it is a symbolic link, as a runtime can make them.
        let metadata = match files::metadata(&path) {
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

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_newest_instance_with_a_file_is_found() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(newest_number(&dir.path().join("none")), None);
        assert_eq!(newest_number(dir.path()), None);
        for name in ["9.log", "10.log.20261123-084316.gz", "11.lock"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        assert_eq!(newest_number(dir.path()), Some(10));
    }
}
