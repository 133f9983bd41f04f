//! Versions of what is stored, and a bounded history of its changes for watchers.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::watch;

/// The versions so far. Its owner keeps it under the lock of what it stores.
pub(crate) struct History<T> {
    version: u64,
    /// Watching from before this version is no longer possible.
    oldest: u64,
    /// The changes a watcher may be behind.
    most: usize,
    changes: VecDeque<Change<T>>,
    told: watch::Sender<u64>,
}

/// One change.
pub(crate) struct Change<T> {
    pub(crate) version: u64,
    /// Absent: it was created.
    pub(crate) before: Option<Arc<T>>,
    /// After the change; of a deletion: the last object, with the deletion's version.
    pub(crate) object: Arc<T>,
    pub(crate) deleted: bool,
}

/// A version that the history no longer reaches.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TooOld {
    pub(crate) oldest: u64,
}

// Not derived: what is shared need not be cloned.
impl<T> Clone for Change<T> {
    fn clone(&self) -> Self {
        Self {
            version: self.version,
            before: self.before.clone(),
            object: Arc::clone(&self.object),
            deleted: self.deleted,
        }
    }
}

impl<T> Change<T> {
    /// What it is to who watches what `matches` says; `None`: nothing.
    pub(crate) fn kind(&self, matches: impl Fn(&T) -> bool) -> Option<&'static str> {
        let before = self.before.as_ref().is_some_and(|object| matches(object));
        let after = !self.deleted && matches(&self.object);
        match (before, after) {
            (false, true) => Some("ADDED"),
            (true, true) => Some("MODIFIED"),
            (true, false) => Some("DELETED"),
            (false, false) => None,
        }
    }
}

impl<T> History<T> {
    /// An empty one, that keeps so many changes.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            version: FIRST_VERSION,
            oldest: FIRST_VERSION,
            most,
            changes: VecDeque::new(),
            told: watch::Sender::new(FIRST_VERSION),
        }
    }

    /// The newest version.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// The newest version, and its changes to come.
    pub(crate) fn versions(&self) -> watch::Receiver<u64> {
        self.told.subscribe()
    }

    /// A version for what changes next.
    pub(crate) fn next(&mut self) -> u64 {
        self.version += 1;
        self.version
    }

    /// Notes a change, and tells who watches.
    pub(crate) fn publish(&mut self, change: Change<T>) {
        let version = change.version;
        self.changes.push_back(change);
        if self.changes.len() > self.most
            && let Some(dropped) = self.changes.pop_front()
        {
            self.oldest = dropped.version;
        }
        self.told.send_replace(version);
    }

    /// Forgets the changes so far.
    pub(crate) fn forget(&mut self) {
        self.oldest = self.next();
        self.changes.clear();
        self.told.send_replace(self.version);
    }

    /// The changes after a version, newest first.
    pub(crate) fn back_to(&self, version: u64) -> Result<impl Iterator<Item = &Change<T>>, TooOld> {
        self.reaches(version)?;
        let newest = self.changes.iter().rev();
        Ok(newest.take_while(move |change| change.version > version))
    }

    /// Up to `limit` changes after a version, oldest first.
    pub(crate) fn changes(&self, after: u64, limit: usize) -> Result<Vec<Change<T>>, TooOld> {
        self.reaches(after)?;
        let first = self.changes.partition_point(|change| change.version <= after);
        Ok(self.changes.range(first..).take(limit).cloned().collect())
    }

    fn reaches(&self, version: u64) -> Result<(), TooOld> {
        let too_old = TooOld { oldest: self.oldest };
        if version < self.oldest { Err(too_old) } else { Ok(()) }
    }
}

/// Not near 0, as in a cluster that has run a while: version 1 is too old from the start.
const FIRST_VERSION: u64 = 500;
