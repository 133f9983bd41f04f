//! Remembers which files were read to their end.
//!
//! The names of rotated files carry the node's local time: after the clock or the time zone stepped
//! back, a newer file sorts before an older one.

use super::{
    listing::ListedFile,
    log_file::{FileId, LogFile},
    path::Name,
};

/// The listed files of a container that were read to their end.
#[derive(Debug, Default)]
pub struct ReadFiles(Vec<ReadFile>);

#[derive(Debug)]
struct ReadFile {
    id: FileId,
    name: Name,
    /// `None`: the file has no line or cannot be read.
    head_hash: Option<u64>,
}

impl ReadFiles {
    /// Adds a file that was read.
    pub fn add(&mut self, mut file: LogFile) {
        let head_hash = file.head_hash();
        let (id, name) = (file.id, file.name);
        self.0.push(ReadFile { id, name, head_hash });
    }

    /// Adds a listed file with its hash.
    pub fn add_listed(&mut self, entry: &ListedFile, head_hash: Option<u64>) {
        self.0.push(ReadFile {
            id: entry.id,
            name: entry.name.clone(),
            head_hash,
        });
    }

    /// Returns whether a listed file was read, also under another name or compressed.
    pub fn contains(&mut self, entry: &ListedFile) -> bool {
        // A new file can have the inode of a removed one, but not its name as well.
        let is_same = |read: &ReadFile| read.id == entry.id && read.name == entry.name;
        if entry.name != Name::Current && self.0.iter().any(is_same) {
            return true;
        }
        let Some(head_hash) = entry.head_hash() else {
            return false;
        };
        let found = self.0.iter_mut().find(|read| read.head_hash == Some(head_hash));
        found.is_some_and(|read| {
            (read.id, read.name) = (entry.id, entry.name.clone());
            true
        })
    }

    /// Forgets files that the node has removed.
    pub fn retain_listed(&mut self, listed: &[ListedFile]) {
        self.0.retain(|read| listed.iter().any(|entry| entry.id == read.id));
    }

    /// Returns the hashes that identify the files.
    pub fn head_hashes(&self) -> Vec<u64> {
        self.0.iter().filter_map(|read| read.head_hash).collect()
    }
}
