//! Resource versions, and a bounded history of changes for watches.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::watch;

/// Resource versions and recent changes. The owner protects it with the lock of its objects.
pub(crate) struct History<T> {
    version: u64,
    /// The oldest version from which a watch can resume.
    oldest: u64,
    /// Maximum number of changes kept.
    capacity: usize,
    changes: VecDeque<Change<T>>,
    newest: watch::Sender<u64>,
}

/// One change of an object.
pub(crate) struct Change<T> {
    pub(crate) version: u64,
    /// The object before the change; `None` if it was created.
    pub(crate) before: Option<Arc<T>>,
    /// The object after the change; for a deletion, the last state with the deletion's version.
    pub(crate) object: Arc<T>,
    pub(crate) deleted: bool,
}

/// The history no longer contains the requested version.
#[derive(Debug, Clone, Copy)]
pub(crate) struct VersionTooOld {
    pub(crate) oldest: u64,
}

// Not derived: `T` does not have to be `Clone`.
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
    /// Returns the watch event type for a watch that selects objects with `matches`; `None` if the
    /// watch does not receive the change.
    pub(crate) fn event_type(&self, matches: impl Fn(&T) -> bool) -> Option<&'static str> {
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
    /// Creates an empty history that keeps up to `capacity` changes.
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            version: FIRST_VERSION,
            oldest: FIRST_VERSION,
            capacity,
            changes: VecDeque::new(),
            newest: watch::Sender::new(FIRST_VERSION),
        }
    }

    /// Returns the newest version.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// Returns a receiver of the newest version.
    pub(crate) fn versions(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }

    /// Allocates the version of the next change.
    pub(crate) fn next(&mut self) -> u64 {
        self.version += 1;
        self.version
    }

    /// Appends a change and wakes the watches.
    pub(crate) fn publish(&mut self, change: Change<T>) {
        let version = change.version;
        self.changes.push_back(change);
        if self.changes.len() > self.capacity
            && let Some(dropped) = self.changes.pop_front()
        {
            self.oldest = dropped.version;
        }
        self.newest.send_replace(version);
    }

    /// Drops all changes, so that no watch can resume from an earlier version.
    pub(crate) fn clear(&mut self) {
        self.oldest = self.next();
        self.changes.clear();
        self.newest.send_replace(self.version);
    }

    /// Returns the changes after a version, newest first.
    pub(crate) fn newest_first_since(&self, version: u64) -> Result<impl Iterator<Item = &Change<T>>, VersionTooOld> {
        self.check_reachable(version)?;
        let newest = self.changes.iter().rev();
        Ok(newest.take_while(move |change| change.version > version))
    }

    /// Returns up to `limit` changes after a version, oldest first.
    pub(crate) fn changes(&self, after: u64, limit: usize) -> Result<Vec<Change<T>>, VersionTooOld> {
        self.check_reachable(after)?;
        let first = self.changes.partition_point(|change| change.version <= after);
        Ok(self.changes.range(first..).take(limit).cloned().collect())
    }

    fn check_reachable(&self, version: u64) -> Result<(), VersionTooOld> {
        let too_old = VersionTooOld { oldest: self.oldest };
        if version < self.oldest { Err(too_old) } else { Ok(()) }
    }
}

/// Above 1, as in a cluster that has run for a while: version 1 is always too old.
const FIRST_VERSION: u64 = 500;
