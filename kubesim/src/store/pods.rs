//! Pods and namespaces, with one resource version per change and a bounded history for watches.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::history::{Change, History, VersionTooOld};
use super::pod::{Pod, PodKey};

/// The stored pods and namespaces.
pub(crate) struct PodStore {
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

/// The pods at one resource version.
pub(crate) struct PodList {
    pub(crate) version: u64,
    pub(crate) pods: Vec<Arc<Pod>>,
}

impl Default for PodStore {
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

impl PodStore {
    /// Returns a receiver of the newest version.
    pub(crate) fn versions(&self) -> watch::Receiver<u64> {
        self.state.lock().history.versions()
    }

    /// Stores a new pod and its namespace. Returns `false` if the name is taken.
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

    /// Creates a namespace unless it exists.
    pub(crate) fn create_namespace(&self, name: &str) {
        self.state.lock().add_namespace(name);
    }

    /// Updates a pod. Returns the result of `change`, or `None` if no pod has this name and UID.
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

    /// Drops the change history, as an API server restart does: watches from earlier versions get
    /// 410 and must list again.
    pub(crate) fn clear_history(&self) {
        self.state.lock().history.clear();
    }

    /// Returns one pod.
    pub(crate) fn get(&self, key: &PodKey) -> Option<Arc<Pod>> {
        self.state.lock().pods.get(key).cloned()
    }

    /// Returns the current pods, sorted by key.
    pub(crate) fn list(&self) -> PodList {
        let state = self.state.lock();
        PodList {
            version: state.history.version(),
            pods: state.pods.values().cloned().collect(),
        }
    }

    /// Returns the names of a plan's pods that exist and are not being deleted: the pod of that
    /// name, or the replicas.
    pub(crate) fn pods_of_plan(&self, namespace: &str, name: &str) -> Vec<String> {
        let listing = self.list();
        let here = listing
            .pods
            .iter()
            .filter(|pod| pod.namespace == namespace && pod.deletion.is_none());
        let of_plan = here.filter(|pod| {
            let replica = pod
                .labels
                .get("pod-template-hash")
                .map(|hash| format!("{name}-{hash}-"));
            pod.name == name || replica.is_some_and(|prefix| pod.name.starts_with(&prefix))
        });
        of_plan.map(|pod| pod.name.clone()).collect()
    }

    /// Returns the pods at an earlier version by reverting the changes after it.
    pub(crate) fn list_at(&self, version: u64) -> Result<PodList, VersionTooOld> {
        let state = self.state.lock();
        let mut pods = state.pods.clone();
        for change in state.history.newest_first_since(version)? {
            match &change.before {
                Some(before) => pods.insert(before.key(), Arc::clone(before)),
                None => pods.remove(&change.object.key()),
            };
        }
        Ok(PodList {
            version,
            pods: pods.into_values().collect(),
        })
    }

    /// Returns up to `limit` changes after a version, oldest first.
    pub(crate) fn changes(&self, after: u64, limit: usize) -> Result<Vec<Change<Pod>>, VersionTooOld> {
        self.state.lock().history.changes(after, limit)
    }

    /// Returns the newest version and the namespaces, sorted by name.
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

/// Number of changes from which a watch can resume. A pod takes about 1 KB, so a few MB at most.
const HISTORY_EVENTS: usize = 2_000;
