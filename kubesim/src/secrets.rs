//! Secrets as they are stored: objects with a version each, and a bounded history for watchers.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::logs::log::lock;

/// Namespace and name.
pub(crate) type SecretKey = (String, String);

/// The stored Secrets.
pub(crate) struct Secrets {
    state: Mutex<State>,
    version: watch::Sender<u64>,
}

struct State {
    version: u64,
    /// Watching from before this version is no longer possible.
    oldest: u64,
    objects: BTreeMap<SecretKey, Arc<Value>>,
    history: VecDeque<Change>,
}

/// One change.
#[derive(Clone)]
pub(crate) struct Change {
    pub(crate) version: u64,
    pub(crate) before: Option<Arc<Value>>,
    /// After the change; of a deletion: the last object, with the deletion's version.
    pub(crate) object: Arc<Value>,
    pub(crate) deleted: bool,
}

/// Why a change was refused.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// There is one of this name.
    Exists,
    /// There is none.
    Missing,
    /// It is not the one that was meant any more.
    Conflict,
}

impl Default for Secrets {
    fn default() -> Self {
        let state = State {
            version: FIRST_VERSION,
            oldest: FIRST_VERSION,
            objects: BTreeMap::new(),
            history: VecDeque::new(),
        };
        Self {
            state: Mutex::new(state),
            version: watch::Sender::new(FIRST_VERSION),
        }
    }
}

impl Secrets {
    /// The newest version, and its changes to come.
    pub(crate) fn versions(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// All of them, and the newest version.
    pub(crate) fn list(&self) -> (u64, Vec<Arc<Value>>) {
        let state = lock(&self.state);
        (state.version, state.objects.values().cloned().collect())
    }

    pub(crate) fn get(&self, key: &SecretKey) -> Option<Arc<Value>> {
        lock(&self.state).objects.get(key).cloned()
    }

    /// Stores a new one; its metadata gets what a server gives.
    pub(crate) fn create(&self, key: SecretKey, mut object: Value) -> Result<Arc<Value>, Refused> {
        let mut state = lock(&self.state);
        if state.objects.contains_key(&key) {
            return Err(Refused::Exists);
        }
        object["metadata"]["uid"] = crate::ids::uid().into();
        object["metadata"]["creationTimestamp"] = crate::api::time(Timestamp::now()).into();
        Ok(self.put(&mut state, key, None, object))
    }

    /// Replaces one. With a resource version, only that one.
    pub(crate) fn replace(&self, key: SecretKey, mut object: Value) -> Result<Arc<Value>, Refused> {
        let mut state = lock(&self.state);
        let before = state.objects.get(&key).cloned().ok_or(Refused::Missing)?;
        let asked = object["metadata"]["resourceVersion"].as_str().unwrap_or_default();
        if !asked.is_empty() && before["metadata"]["resourceVersion"] != asked {
            return Err(Refused::Conflict);
        }
        for kept in ["uid", "creationTimestamp"] {
            object["metadata"][kept] = before["metadata"][kept].clone();
        }
        Ok(self.put(&mut state, key, Some(before), object))
    }

    /// Removes one. With a resource version, only that one.
    pub(crate) fn remove(&self, key: &SecretKey, version: Option<&str>) -> Result<Arc<Value>, Refused> {
        let mut state = lock(&self.state);
        let before = state.objects.get(key).cloned().ok_or(Refused::Missing)?;
        if version.is_some_and(|asked| before["metadata"]["resourceVersion"] != asked) {
            return Err(Refused::Conflict);
        }
        state.objects.remove(key);
        let mut last = Value::clone(&before);
        let version = state.next();
        last["metadata"]["resourceVersion"] = version.to_string().into();
        self.publish(
            &mut state,
            Change {
                version,
                before: Some(Arc::clone(&before)),
                object: Arc::new(last),
                deleted: true,
            },
        );
        Ok(before)
    }

    /// Up to `limit` changes after a version, oldest first. Fails with the oldest version that can be asked for where that is later.
    pub(crate) fn changes(&self, after: u64, limit: usize) -> Result<Vec<Change>, u64> {
        let state = lock(&self.state);
        if after < state.oldest {
            return Err(state.oldest);
        }
        let first = state.history.partition_point(|change| change.version <= after);
        Ok(state.history.range(first..).take(limit).cloned().collect())
    }

    fn put(&self, state: &mut State, key: SecretKey, before: Option<Arc<Value>>, mut object: Value) -> Arc<Value> {
        let version = state.next();
        let metadata = json!({"namespace": key.0, "name": key.1, "resourceVersion": version.to_string()});
        for (name, value) in metadata.as_object().into_iter().flatten() {
            object["metadata"][name] = value.clone();
        }
        let object = Arc::new(object);
        state.objects.insert(key, Arc::clone(&object));
        self.publish(
            state,
            Change {
                version,
                before,
                object: Arc::clone(&object),
                deleted: false,
            },
        );
        object
    }

    fn publish(&self, state: &mut State, change: Change) {
        let version = change.version;
        state.history.push_back(change);
        if state.history.len() > HISTORY_CHANGES
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
}

/// Not near 0, as in a cluster that has run a while.
const FIRST_VERSION: u64 = 500;

/// The changes a watcher may be behind.
const HISTORY_CHANGES: usize = 1_000;
