//! What the API server stores: the pods, one resource version per change, and a bounded history for watchers.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::pod::{Pod, PodKey};
use crate::store::history::{Change, History, TooOld};

/// The stored objects.
pub(crate) struct Store {
    state: Mutex<State>,
}

struct State {
    pods: BTreeMap<PodKey, Arc<Pod>>,
    namespaces: BTreeMap<String, Namespace>,
    history: History<Pod>,
}

/// A namespace.
#[derive(Debug, Clone)]
pub(crate) struct Namespace {
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) version: u64,
    pub(crate) created: Timestamp,
}

/// A list at one version.
pub(crate) struct Listing {
    pub(crate) version: u64,
    pub(crate) pods: Vec<Arc<Pod>>,
}

impl Default for Store {
    fn default() -> Self {
        let state = State {
            pods: BTreeMap::new(),
            namespaces: BTreeMap::new(),
            history: History::new(HISTORY_EVENTS),
        };
        Self {
            state: Mutex::new(state),
        }
    }
}

impl Store {
    /// Returns the newest version, and its changes to come.
    pub(crate) fn versions(&self) -> watch::Receiver<u64> {
        self.state.lock().history.versions()
    }

    /// Stores a new pod (and its namespace). `false` when the name is taken.
    pub(crate) fn create(&self, mut pod: Pod) -> bool {
        let mut state = self.state.lock();
        if state.pods.contains_key(&pod.key()) {
            return false;
        }
        state.add_namespace(&pod.namespace);
        pod.version = state.history.next();
        let pod = Arc::new(pod);
        state.pods.insert(pod.key(), Arc::clone(&pod));
        let change = Change {
            version: pod.version,
            before: None,
            object: pod,
            deleted: false,
        };
        state.history.publish(change);
        true
    }

    /// Makes a namespace, unless it exists.
    pub(crate) fn create_namespace(&self, name: &str) {
        self.state.lock().add_namespace(name);
    }

    /// Changes a pod. `None` when there is none with that name and uid; else what `change` returned.
    pub(crate) fn update<T>(&self, key: &PodKey, uid: &str, change: impl FnOnce(&mut Pod) -> T) -> Option<T> {
        let mut state = self.state.lock();
        let before = state.pods.get(key).filter(|pod| pod.uid == uid).cloned()?;
        let mut pod = Pod::clone(&before);
        let result = change(&mut pod);
        if pod.ready() != before.ready() {
            pod.ready_changed = Timestamp::now();
        }
        pod.version = state.history.next();
        let pod = Arc::new(pod);
        state.pods.insert(key.clone(), Arc::clone(&pod));
        let change = Change {
            version: pod.version,
            before: Some(before),
            object: pod,
            deleted: false,
        };
        state.history.publish(change);
        Some(result)
    }

    /// Removes a pod.
    pub(crate) fn remove(&self, key: &PodKey, uid: &str) {
        let mut state = self.state.lock();
        let Some(before) = state.pods.get(key).filter(|pod| pod.uid == uid).cloned() else {
            return;
        };
        state.pods.remove(key);
        let mut last = Pod::clone(&before);
        last.version = state.history.next();
        let change = Change {
            version: last.version,
            before: Some(before),
            object: Arc::new(last),
            deleted: true,
        };
        state.history.publish(change);
    }

    /// Forgets the changes so far, as an API server that was restarted: who watches from before must list anew.
    pub(crate) fn forget_history(&self) {
        self.state.lock().history.forget();
    }

    /// Returns one pod.
    pub(crate) fn pod(&self, key: &PodKey) -> Option<Arc<Pod>> {
        self.state.lock().pods.get(key).cloned()
    }

    /// Returns the pods as they are now, in the order of their keys.
    pub(crate) fn list(&self) -> Listing {
        let state = self.state.lock();
        Listing {
            version: state.history.version(),
            pods: state.pods.values().cloned().collect(),
        }
    }

    /// Returns the pods as they were at a version, by undoing the history.
    pub(crate) fn list_at(&self, version: u64) -> Result<Listing, TooOld> {
        let state = self.state.lock();
        let mut pods = state.pods.clone();
        for change in state.history.back_to(version)? {
            match &change.before {
                Some(before) => pods.insert(before.key(), Arc::clone(before)),
                None => pods.remove(&change.object.key()),
            };
        }
        Ok(Listing {
            version,
            pods: pods.into_values().collect(),
        })
    }

    /// Returns up to `limit` changes after a version, oldest first.
    pub(crate) fn changes(&self, after: u64, limit: usize) -> Result<Vec<Change<Pod>>, TooOld> {
        self.state.lock().history.changes(after, limit)
    }

    /// Returns the namespaces in the order of their names, and the newest version.
    pub(crate) fn namespaces(&self) -> (u64, Vec<Namespace>) {
        let state = self.state.lock();
        (state.history.version(), state.namespaces.values().cloned().collect())
    }
}

impl State {
    fn add_namespace(&mut self, name: &str) {
        if !self.namespaces.contains_key(name) {
            let version = self.history.next();
            let namespace = Namespace {
                name: name.to_owned(),
                uid: crate::ids::uid(),
                version,
                created: Timestamp::now(),
            };
            self.namespaces.insert(name.to_owned(), namespace);
        }
    }
}

/// The changes a watcher may be behind. A pod is about 1 KB here, so a few MB at most.
const HISTORY_EVENTS: usize = 2_000;
