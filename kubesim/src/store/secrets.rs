//! Secrets, with one resource version per change and a bounded history for watches.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::history::{Change, History, VersionTooOld};
use super::write_error::WriteError;

/// Namespace and name.
pub(crate) type SecretKey = (String, String);

/// The stored Secrets.
pub(crate) struct SecretStore {
    state: Mutex<State>,
}

struct State {
    objects: BTreeMap<SecretKey, Arc<Value>>,
    history: History<Value>,
}

impl Default for SecretStore {
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

impl SecretStore {
    /// Returns a receiver of the newest version.
    pub(crate) fn versions(&self) -> watch::Receiver<u64> {
        self.state.lock().history.versions()
    }

    /// Returns the newest version and all Secrets.
    pub(crate) fn list(&self) -> (u64, Vec<Arc<Value>>) {
        let state = self.state.lock();
        (state.history.version(), state.objects.values().cloned().collect())
    }

    pub(crate) fn get(&self, key: &SecretKey) -> Option<Arc<Value>> {
        self.state.lock().objects.get(key).cloned()
    }

    /// Stores a new Secret; the store sets its UID, creation time and resource version.
    ///
    /// *Errors*: the name is taken.
    pub(crate) fn create(&self, key: SecretKey, mut object: Value) -> Result<Arc<Value>, WriteError> {
        let mut state = self.state.lock();
        if state.objects.contains_key(&key) {
            return Err(WriteError::AlreadyExists);
        }
        object["metadata"]["uid"] = crate::ids::uid().into();
        object["metadata"]["creationTimestamp"] = crate::time::rfc3339_seconds(crate::time::now()).into();
        Ok(self.put(&mut state, key, None, object))
    }

    /// Replaces a Secret, if a resource version is metadata only that version.
    ///
    /// *Errors*: no such Secret, or another version.
    pub(crate) fn replace(&self, key: SecretKey, mut object: Value) -> Result<Arc<Value>, WriteError> {
        let mut state = self.state.lock();
        let before = state.objects.get(&key).cloned().ok_or(WriteError::NotFound)?;
        let expected = object["metadata"]["resourceVersion"].as_str().unwrap_or_default();
        if !expected.is_empty() && before["metadata"]["resourceVersion"] != expected {
            return Err(WriteError::Conflict);
        }
        for field in ["uid", "creationTimestamp"] {
            object["metadata"][field] = before["metadata"][field].clone();
        }
        Ok(self.put(&mut state, key, Some(before), object))
    }

    /// Removes a Secret, if a resource version is metadata only that version.
    ///
    /// *Errors*: no such Secret, or another version.
    pub(crate) fn remove(&self, key: &SecretKey, version: Option<&str>) -> Result<Arc<Value>, WriteError> {
        let mut state = self.state.lock();
        let before = state.objects.get(key).cloned().ok_or(WriteError::NotFound)?;
        if version.is_some_and(|expected| before["metadata"]["resourceVersion"] != expected) {
            return Err(WriteError::Conflict);
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

    /// Returns up to `limit` changes after a version, oldest first.
    pub(crate) fn changes(&self, after: u64, limit: usize) -> Result<Vec<Change<Value>>, VersionTooOld> {
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

/// Number of changes from which a watch can resume.
const HISTORY_CHANGES: usize = 1_000;
