//! What the API server stores: the pods, one resource version per change, and a bounded history for watchers.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use tokio::sync::watch;

use super::pod::{Pod, PodKey};
use crate::logs::log::lock;

/// The stored objects.
pub(crate) struct Store {
    state: Mutex<State>,
    version: watch::Sender<u64>,
}

struct State {
    version: u64,
    /// Watching from before this version is no longer possible.
    oldest: u64,
    pods: BTreeMap<PodKey, Arc<Pod>>,
    namespaces: BTreeMap<String, Namespace>,
    history: VecDeque<Event>,
}

/// A namespace.
#[derive(Debug, Clone)]
pub(crate) struct Namespace {
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) version: u64,
    pub(crate) created: Timestamp,
}

/// One change.
#[derive(Clone)]
pub(crate) struct Event {
    pub(crate) version: u64,
    /// Absent: it was created.
    pub(crate) before: Option<Arc<Pod>>,
    /// After the change; of a deletion: the last object, with the deletion's version.
    pub(crate) pod: Arc<Pod>,
    pub(crate) deleted: bool,
}

/// A list at one version.
pub(crate) struct Listing {
    pub(crate) version: u64,
    pub(crate) pods: Vec<Arc<Pod>>,
}

/// A version that the history no longer reaches.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TooOld {
    pub(crate) oldest: u64,
}

impl Default for Store {
    fn default() -> Self {
        let state = State {
            version: FIRST_VERSION,
            oldest: FIRST_VERSION,
            pods: BTreeMap::new(),
            namespaces: BTreeMap::new(),
            history: VecDeque::new(),
        };
        Self {
            state: Mutex::new(state),
            version: watch::Sender::new(FIRST_VERSION),
        }
    }
}

impl Store {
    /// Returns the newest version, and its changes to come.
    pub(crate) fn versions(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// Stores a new pod (and its namespace). `false` when the name is taken.
    pub(crate) fn create(&self, mut pod: Pod) -> bool {
        let mut state = lock(&self.state);
        if state.pods.contains_key(&pod.key()) {
            return false;
        }
        state.add_namespace(&pod.namespace);
        pod.version = state.next();
        let pod = Arc::new(pod);
        state.pods.insert(pod.key(), Arc::clone(&pod));
        let event = Event {
            version: pod.version,
            before: None,
            pod,
            deleted: false,
        };
        self.publish(&mut state, event);
        true
    }

    /// Makes a namespace, unless it exists.
    pub(crate) fn create_namespace(&self, name: &str) {
        lock(&self.state).add_namespace(name);
    }

    /// Changes a pod. `None` when there is none with that name and uid; else what `change` returned.
    pub(crate) fn update<T>(&self, key: &PodKey, uid: &str, change: impl FnOnce(&mut Pod) -> T) -> Option<T> {
        let mut state = lock(&self.state);
        let before = state.pods.get(key).filter(|pod| pod.uid == uid).cloned()?;
        let mut pod = Pod::clone(&before);
        let result = change(&mut pod);
        if pod.ready() != before.ready() {
            pod.ready_changed = Timestamp::now();
        }
        pod.version = state.next();
        let pod = Arc::new(pod);
        state.pods.insert(key.clone(), Arc::clone(&pod));
        let event = Event {
            version: pod.version,
            before: Some(before),
            pod,
            deleted: false,
        };
        self.publish(&mut state, event);
        Some(result)
    }

    /// Removes a pod.
    pub(crate) fn remove(&self, key: &PodKey, uid: &str) {
        let mut state = lock(&self.state);
        let Some(before) = state.pods.get(key).filter(|pod| pod.uid == uid).cloned() else {
            return;
        };
        state.pods.remove(key);
        let mut last = Pod::clone(&before);
        last.version = state.next();
        let event = Event {
            version: last.version,
            before: Some(before),
            pod: Arc::new(last),
            deleted: true,
        };
        self.publish(&mut state, event);
    }

    /// Forgets the changes so far, as an API server that was restarted: who watches from before must list anew.
    pub(crate) fn forget_history(&self) {
        let mut state = lock(&self.state);
        state.oldest = state.next();
        state.history.clear();
        self.version.send_replace(state.version);
    }

    /// Returns one pod.
    pub(crate) fn pod(&self, key: &PodKey) -> Option<Arc<Pod>> {
        lock(&self.state).pods.get(key).cloned()
    }

    /// Returns the pods as they are now, in the order of their keys.
    pub(crate) fn list(&self) -> Listing {
        let state = lock(&self.state);
        Listing {
            version: state.version,
            pods: state.pods.values().cloned().collect(),
        }
    }

    /// Returns the pods as they were at a version, by undoing the history.
    pub(crate) fn list_at(&self, version: u64) -> Result<Listing, TooOld> {
        let state = lock(&self.state);
        if version < state.oldest {
            return Err(TooOld { oldest: state.oldest });
        }
        let mut pods = state.pods.clone();
        for event in state.history.iter().rev().take_while(|event| event.version > version) {
            match &event.before {
                Some(before) => pods.insert(before.key(), Arc::clone(before)),
                None => pods.remove(&event.pod.key()),
            };
        }
        Ok(Listing {
            version,
            pods: pods.into_values().collect(),
        })
    }

    /// Returns up to `limit` changes after a version, oldest first.
    pub(crate) fn changes(&self, after: u64, limit: usize) -> Result<Vec<Event>, TooOld> {
        let state = lock(&self.state);
        if after < state.oldest {
            return Err(TooOld { oldest: state.oldest });
        }
        let first = state.history.partition_point(|event| event.version <= after);
        Ok(state.history.range(first..).take(limit).cloned().collect())
    }

    /// Returns the namespaces in the order of their names, and the newest version.
    pub(crate) fn namespaces(&self) -> (u64, Vec<Namespace>) {
        let state = lock(&self.state);
        (state.version, state.namespaces.values().cloned().collect())
    }

    fn publish(&self, state: &mut State, event: Event) {
        let version = event.version;
        state.history.push_back(event);
        if state.history.len() > HISTORY_EVENTS
            && let Some(dropped) = state.history.pop_front()
        {
            state.oldest = dropped.version;
        }
        self.version.send_replace(version);
    }
}

impl State {
    fn next(&mut self) -> u64 {
        self.version += 1;
        self.version
    }

    fn add_namespace(&mut self, name: &str) {
        if !self.namespaces.contains_key(name) {
            let version = self.next();
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

/// Not near 0, as in a cluster that has run a while: version 1 is too old from the start.
const FIRST_VERSION: u64 = 500;

/// The changes a watcher may be behind. A pod is about 1 KB here, so a few MB at most.
const HISTORY_EVENTS: usize = 2_000;
