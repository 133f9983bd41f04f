//! Secrets as they are stored: objects with a version each, and a bounded history for watchers.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::store::history::{Change, History, TooOld};
use crate::store::write_error::Refused;

/// Namespace and name.
pub(crate) type SecretKey = (String, String);

/// The stored Secrets.
pub(crate) struct Secrets {
    state: Mutex<State>,
}

struct State {
    objects: BTreeMap<SecretKey, Arc<Value>>,
    history: History<Value>,
}

impl Default for Secrets {
    fn default() -> Self {
        let state = State {
            objects: BTreeMap::new(),
            history: History::new(HISTORY_CHANGES),
        };
        Self {
            state: Mutex::new(state),
        }
    }
}

impl Secrets {
    /// The newest version, and its changes to come.
    pub(crate) fn versions(&self) -> watch::Receiver<u64> {
        self.state.lock().history.versions()
    }

    /// All of them, and the newest version.
    pub(crate) fn list(&self) -> (u64, Vec<Arc<Value>>) {
        let state = self.state.lock();
        (state.history.version(), state.objects.values().cloned().collect())
    }

    pub(crate) fn get(&self, key: &SecretKey) -> Option<Arc<Value>> {
        self.state.lock().objects.get(key).cloned()
    }

    /// Stores a new one; its metadata gets what a server gives.
    pub(crate) fn create(&self, key: SecretKey, mut object: Value) -> Result<Arc<Value>, Refused> {
        let mut state = self.state.lock();
        if state.objects.contains_key(&key) {
            return Err(Refused::Exists);
        }
        object["metadata"]["uid"] = crate::ids::uid().into();
        object["metadata"]["creationTimestamp"] = crate::time::rfc3339_seconds(Timestamp::now()).into();
        Ok(self.put(&mut state, key, None, object))
    }

    /// Replaces one. With a resource version, only that one.
    pub(crate) fn replace(&self, key: SecretKey, mut object: Value) -> Result<Arc<Value>, Refused> {
        let mut state = self.state.lock();
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
        let mut state = self.state.lock();
        let before = state.objects.get(key).cloned().ok_or(Refused::Missing)?;
        if version.is_some_and(|asked| before["metadata"]["resourceVersion"] != asked) {
            return Err(Refused::Conflict);
        }
        state.objects.remove(key);
        let mut last = Value::clone(&before);
        let version = state.history.next();
        last["metadata"]["resourceVersion"] = version.to_string().into();
        state.history.publish(Change {
            version,
            before: Some(Arc::clone(&before)),
            object: Arc::new(last),
            deleted: true,
        });
        Ok(before)
    }

    /// Up to `limit` changes after a version, oldest first.
    pub(crate) fn changes(&self, after: u64, limit: usize) -> Result<Vec<Change<Value>>, TooOld> {
        self.state.lock().history.changes(after, limit)
    }

    fn put(&self, state: &mut State, key: SecretKey, before: Option<Arc<Value>>, mut object: Value) -> Arc<Value> {
        let version = state.history.next();
        let metadata = json!({"namespace": key.0, "name": key.1, "resourceVersion": version.to_string()});
        for (name, value) in metadata.as_object().into_iter().flatten() {
            object["metadata"][name] = value.clone();
        }
        let object = Arc::new(object);
        state.objects.insert(key, Arc::clone(&object));
        state.history.publish(Change {
            version,
            before,
            object: Arc::clone(&object),
            deleted: false,
        });
        object
    }
}

/// The changes a watcher may be behind.
const HISTORY_CHANGES: usize = 1_000;
