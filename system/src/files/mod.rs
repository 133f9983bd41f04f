//! Files and directories.
//!
//! Everything that the product keeps is written here: bus segments, checkpoints, spool, registry.
//! New files and directories are accessible by their owner only, because they contain log lines and
//! secrets. A new, renamed or removed name is durable after [`sync_dir`].

#![allow(clippy::disallowed_methods, reason = "the only place that uses std::fs")]

mod file;
mod outage;
mod watch;

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::Path,
    time::{Duration, SystemTime},
};

pub use file::{File, OpenOptions, Reader};
pub use outage::{EndedOutage, Outage};
pub use watch::{DirEvent, DirEventKind, DirNotifier};

/// Calls the simulated disk if there is one.
macro_rules! simulated {
    ($call:ident($($argument:expr),*)) => {
        #[cfg(feature = "simulation")]
        if let Some(machine) = crate::simulation::current() {
            return machine.disk().$call($($argument),*);
        }
    };
}

/// What is known of a file or directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// The length in bytes.
    pub len: u64,
    /// The device; with the inode it identifies the file, whatever its name.
    pub device: u64,
    /// The inode.
    pub inode: u64,
    /// Whether it is a directory.
    pub is_dir: bool,
    /// When it was modified, since 1970.
    pub modified: Duration,
}

/// An entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// The name. Names that are not UTF-8 are left out of listings.
    pub name: String,
    /// Whether it is a directory; a symbolic link is none.
    pub is_dir: bool,
}

impl From<&fs::Metadata> for Metadata {
    fn from(metadata: &fs::Metadata) -> Self {
        let modified = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        Self {
            len: metadata.len(),
            device: metadata.dev(),
            inode: metadata.ino(),
            is_dir: metadata.is_dir(),
            modified: modified.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default(),
        }
    }
}

/// Returns the metadata of a file or directory; of its target for a symbolic link.
///
/// # Errors
/// It does not exist or cannot be read.
pub fn metadata(path: &Path) -> io::Result<Metadata> {
    simulated!(metadata(path));
    Ok(Metadata::from(&fs::metadata(path)?))
}

/// Lists a directory, sorted by name.
///
/// # Errors
/// It does not exist or cannot be read.
pub fn list(dir: &Path) -> io::Result<Vec<DirEntry>> {
    simulated!(list(dir));
    let mut entries = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if let Ok(name) = entry.file_name().into_string() {
            match entry.file_type() {
                Ok(kind) => entries.push(DirEntry {
                    name,
                    is_dir: kind.is_dir(),
                }),
                // Removed since it was read, on a file system whose directories have no types.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    entries.sort_unstable_by(|one, other| one.name.cmp(&other.name));
    Ok(entries)
}

/// Reads a whole file.
///
/// # Errors
/// It does not exist or cannot be read.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let len = usize::try_from(file.metadata()?.len).unwrap_or(usize::MAX);
    let mut bytes = Vec::with_capacity(len);
    io::Read::read_to_end(&mut Reader::new(file), &mut bytes)?;
    Ok(bytes)
}

/// Creates a directory and its parents with mode 0700. Existing ones are not changed.
///
/// # Errors
/// It cannot be created.
pub fn create_dir_all(dir: &Path) -> io::Result<()> {
    simulated!(create_dir_all(dir));
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// Renames a file or directory. A file of the new name is replaced.
///
/// # Errors
/// It cannot be renamed.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    simulated!(rename(from, to));
    fs::rename(from, to)
}

/// Removes a file.
///
/// # Errors
/// It does not exist or cannot be removed.
pub fn remove_file(path: &Path) -> io::Result<()> {
    simulated!(remove_file(path));
    fs::remove_file(path)
}

/// Removes an empty directory.
///
/// # Errors
/// It does not exist, is not empty or cannot be removed.
pub fn remove_dir(path: &Path) -> io::Result<()> {
    simulated!(remove_dir(path));
    fs::remove_dir(path)
}

/// Removes a directory and its content.
///
/// # Errors
/// It does not exist or cannot be removed; part of it may be gone.
pub fn remove_dir_all(path: &Path) -> io::Result<()> {
    simulated!(remove_dir_all(path));
    fs::remove_dir_all(path)
}

/// Makes the names in a directory durable.
///
/// # Errors
/// The disk refused it.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    simulated!(sync_dir(dir));
    fs::File::open(dir)?.sync_all()
}

/// Bytes of a probe: a block, for which a full disk has no room.
const PROBE_BYTES: usize = 4096;

/// Writes, syncs and removes a file in a directory, to find out whether the disk accepts writes.
///
/// # Errors
/// It does not.
pub fn probe(dir: &Path) -> io::Result<()> {
    let path = dir.join("probe");
    let written = replace(&path, &[0; PROBE_BYTES]);
    // A write whose last sync failed has left the file.
    let removed = remove_file(&path);
    written.and(removed)
}

/// Replaces a file by one with this content, durably: after a crash it has the old or the new
/// content. The temporary file beside it has the extension `tmp` appended.
///
/// # Errors
/// The file is unchanged; if only the last sync failed, it may be the new one.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let temporary = Path::new(&temporary);
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(temporary)
        .and_then(|file| {
            file.write_at(content, 0)?;
            file.sync()?;
            rename(temporary, path)
        });
    if let Err(error) = written {
        // What is left of it is overwritten by the next attempt.
        let _ = remove_file(temporary);
        return Err(error);
    }
    let parent = path.parent().filter(|parent| *parent != Path::new(""));
    sync_dir(parent.unwrap_or(Path::new(".")))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn new_directories_and_files_are_accessible_by_their_owner_only() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("a/b");
        create_dir_all(&dir).unwrap();
        replace(&dir.join("file"), b"x").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(
            [mode(&root.path().join("a")), mode(&dir), mode(&dir.join("file"))],
            [0o700, 0o700, 0o600]
        );
    }

    #[test]
    fn a_replaced_file_has_the_new_content_and_no_other_file_is_left() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("file");
        replace(&path, b"old content").unwrap();
        replace(&path, b"new").unwrap();
        assert_eq!(read(&path).unwrap(), b"new");
        assert_eq!(list(root.path()).unwrap().len(), 1);
    }

    #[test]
    fn a_listing_is_sorted_by_name() {
        let root = tempfile::tempdir().unwrap();
        for name in ["b", "c", "a"] {
            replace(&root.path().join(name), b"").unwrap();
        }
        let names: Vec<_> = list(root.path()).unwrap().into_iter().map(|entry| entry.name).collect();
        assert_eq!(names, ["a", "b", "c"]);
    }
}
