//! Names of files and directories, and how to take back changes that were not synced.

use std::{
    collections::BTreeMap,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rand::Rng;
use system::files::{DirEntry, Metadata};

use super::{content::Inode, lost_of};

/// What is known of a directory.
pub const DIR_METADATA: Metadata = Metadata {
    len: 0,
    device: 1,
    inode: 0,
    is_dir: true,
    modified: Duration::ZERO,
};

#[derive(Clone)]
pub enum Entry {
    Dir,
    File(Arc<Inode>),
}

#[derive(Default)]
pub struct Names {
    entries: BTreeMap<PathBuf, Entry>,
    last_inode: u64,
    /// How to take back changes since the last sync of the directory, oldest first. Directories
    /// are durable at once: the product creates few, before it writes anything.
    unsynced: Vec<Undo>,
}

/// What a path named before a change.
struct Undo {
    changed: Vec<(PathBuf, Option<Entry>)>,
}

impl Names {
    pub fn get(&self, path: &Path) -> Option<&Entry> {
        self.entries.get(path)
    }

    pub fn inode(&self, path: &Path) -> io::Result<Arc<Inode>> {
        match self.get(path) {
            Some(Entry::File(inode)) => Ok(Arc::clone(inode)),
            Some(Entry::Dir) => Err(ErrorKind::IsADirectory.into()),
            None => Err(ErrorKind::NotFound.into()),
        }
    }

    pub fn inodes(&self, below: &Path) -> Vec<Arc<Inode>> {
        let inode = |entry: &Entry| match entry {
            Entry::File(inode) => Some(Arc::clone(inode)),
            Entry::Dir => None,
        };
        self.below(below).filter_map(|(_, entry)| inode(entry)).collect()
    }

    pub fn create(&mut self, path: &Path) -> io::Result<Arc<Inode>> {
        let parent = path.parent().unwrap_or(Path::new("/"));
        if parent != Path::new("/") && !matches!(self.get(parent), Some(Entry::Dir)) {
            return Err(ErrorKind::NotFound.into());
        }
        self.last_inode += 1;
        let inode = Inode::new(self.last_inode, path.to_owned());
        self.change(vec![(path.to_owned(), Some(Entry::File(Arc::clone(&inode))))]);
        Ok(inode)
    }

    pub fn create_dir_all(&mut self, dir: &Path) -> io::Result<()> {
        for dir in dir.ancestors().filter(|dir| *dir != Path::new("/")) {
            match self.get(dir) {
                Some(Entry::File(_)) => return Err(ErrorKind::NotADirectory.into()),
                _ => drop(self.entries.insert(dir.to_owned(), Entry::Dir)),
            }
        }
        Ok(())
    }

    pub fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        match self.get(dir) {
            Some(Entry::Dir) => {}
            Some(Entry::File(_)) => return Err(ErrorKind::NotADirectory.into()),
            None => return Err(ErrorKind::NotFound.into()),
        }
        let children = self.below(dir).filter(|(path, _)| path.parent() == Some(dir));
        let mut entries: Vec<_> = children
            .map(|(path, entry)| DirEntry {
                name: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
                is_dir: matches!(entry, Entry::Dir),
            })
            .collect();
        entries.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        Ok(entries)
    }

    fn below(&self, dir: &Path) -> impl Iterator<Item = (&PathBuf, &Entry)> {
        // Paths are ordered by their components, so all of a directory follow it.
        self.entries
            .range(dir.to_owned()..)
            .take_while(move |(path, _)| path.starts_with(dir))
            .skip_while(move |(path, _)| path.as_path() == dir)
    }

    pub fn files(&self, below: &Path) -> Vec<(PathBuf, u64)> {
        let file = |(path, entry): (&PathBuf, &Entry)| match entry {
            Entry::File(inode) => Some((path.clone(), inode.metadata().len)),
            Entry::Dir => None,
        };
        self.below(below).filter_map(file).collect()
    }

    pub fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        match self.get(from).cloned() {
            None => Err(ErrorKind::NotFound.into()),
            Some(entry @ Entry::File(_)) => {
                self.change(vec![(from.to_owned(), None), (to.to_owned(), Some(entry))]);
                Ok(())
            }
            Some(Entry::Dir) => self.rename_dir(from, to),
        }
    }

    fn rename_dir(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        if self.get(to).is_some() {
            return Err(ErrorKind::DirectoryNotEmpty.into());
        }
        let mut changes = Vec::new();
        let moved: Vec<_> = self
            .below(from)
            .map(|(path, entry)| (path.clone(), entry.clone()))
            .collect();
        for (path, entry) in moved.into_iter().chain([(from.to_owned(), Entry::Dir)]) {
            let rest = path.strip_prefix(from).unwrap_or(Path::new(""));
            let target = if rest == Path::new("") {
                to.to_owned()
            } else {
                to.join(rest)
            };
            changes.push((path, None));
            changes.push((target, Some(entry)));
        }
        self.change(changes);
        Ok(())
    }

    pub fn remove_file(&mut self, path: &Path) -> io::Result<()> {
        self.inode(path)?;
        self.change(vec![(path.to_owned(), None)]);
        Ok(())
    }

    pub fn remove_dir(&mut self, path: &Path) -> io::Result<()> {
        if !self.list(path)?.is_empty() {
            return Err(ErrorKind::DirectoryNotEmpty.into());
        }
        self.entries.remove(path);
        Ok(())
    }

    /// Returns the directories that are gone.
    pub fn remove_dir_all(&mut self, path: &Path) -> io::Result<Vec<PathBuf>> {
        self.list(path)?;
        let below = self
            .below(path)
            .map(|(path, entry)| (path.clone(), matches!(entry, Entry::Dir)));
        let (dirs, files): (Vec<_>, Vec<_>) = below.partition(|(_, is_dir)| *is_dir);
        self.change(files.into_iter().map(|(path, _)| (path, None)).collect());
        let removed: Vec<_> = dirs.into_iter().map(|(dir, _)| dir).chain([path.to_owned()]).collect();
        for dir in &removed {
            self.entries.remove(dir);
        }
        Ok(removed)
    }

    pub fn sync_dir(&mut self, dir: &Path) -> io::Result<()> {
        self.list(dir)?;
        let is_of = |undo: &Undo| undo.changed.iter().any(|(path, _)| path.parent() == Some(dir));
        self.unsynced.retain(|undo| !is_of(undo));
        Ok(())
    }

    /// Takes back a random number of the last changes of names below a directory.
    pub fn lose_power(&mut self, below: &Path, random: &mut impl Rng) {
        let is_below = |undo: &mut Undo| undo.changed.iter().any(|(path, _)| path.starts_with(below));
        let mut unsynced: Vec<_> = self.unsynced.extract_if(.., is_below).collect();
        for _ in 0..lost_of(unsynced.len(), random) {
            let Some(undo) = unsynced.pop() else { break };
            self.apply(undo.changed);
        }
    }

    fn change(&mut self, changes: Vec<(PathBuf, Option<Entry>)>) {
        let changed = changes.iter().rev();
        let changed = changed.map(|(path, _)| (path.clone(), self.entries.get(path).cloned()));
        self.unsynced.push(Undo {
            changed: changed.collect(),
        });
        self.apply(changes);
    }

    fn apply(&mut self, changes: Vec<(PathBuf, Option<Entry>)>) {
        for (path, entry) in changes {
            match entry {
                Some(entry) => {
                    if let Entry::File(inode) = &entry {
                        inode.path.lock().clone_from(&path);
                    }
                    self.entries.insert(path, entry);
                }
                None => drop(self.entries.remove(&path)),
            }
        }
    }
}
