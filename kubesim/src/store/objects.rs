//! Objects stored as declared (`kubectl apply`), such as Deployments. The simulator does not act on
//! them, except for RBAC objects (see `rbac`).

use std::collections::BTreeMap;

use parking_lot::Mutex;
use serde_json::{Value, json};

use super::write_error::WriteError;

/// A kind of object that can be stored.
pub(crate) struct ResourceKind {
    /// API group; empty for the core group.
    pub(crate) group: &'static str,
    pub(crate) resource: &'static str,
    pub(crate) name: &'static str,
    pub(crate) namespaced: bool,
}

const fn kind(group: &'static str, resource: &'static str, name: &'static str, namespaced: bool) -> ResourceKind {
    ResourceKind {
        group,
        resource,
        name,
        namespaced,
    }
}

/// API group of RBAC.
pub(crate) const RBAC: &str = "rbac.authorization.k8s.io";

/// All kinds, each with version `v1`.
pub(crate) const KINDS: [ResourceKind; 15] = [
    kind("", "configmaps", "ConfigMap", true),
    kind("", "serviceaccounts", "ServiceAccount", true),
    kind("", "services", "Service", true),
    kind("apps", "daemonsets", "DaemonSet", true),
    kind("apps", "deployments", "Deployment", true),
    kind("apps", "statefulsets", "StatefulSet", true),
    kind("batch", "cronjobs", "CronJob", true),
    kind("batch", "jobs", "Job", true),
    kind("networking.k8s.io", "networkpolicies", "NetworkPolicy", true),
    kind("policy", "poddisruptionbudgets", "PodDisruptionBudget", true),
    kind(RBAC, "clusterrolebindings", "ClusterRoleBinding", false),
    kind(RBAC, "clusterroles", "ClusterRole", false),
    kind(RBAC, "rolebindings", "RoleBinding", true),
    kind(RBAC, "roles", "Role", true),
    kind("scheduling.k8s.io", "priorityclasses", "PriorityClass", false),
];

/// (Group, resource), namespace, name.
pub(crate) type ObjectKey = ((&'static str, &'static str), String, String);

/// The stored objects.
#[derive(Default)]
pub(crate) struct ObjectStore {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<ObjectKey, Value>,
    version: u64,
}

impl ObjectStore {
    pub(crate) fn get(&self, key: &ObjectKey) -> Option<Value> {
        self.state.lock().objects.get(key).cloned()
    }

    /// Returns the newest version and the objects of a kind in a namespace, or in all namespaces if
    /// it is empty.
    pub(crate) fn list(&self, kind: &ResourceKind, namespace: &str) -> (u64, Vec<Value>) {
        let state = self.state.lock();
        let matching = state.objects.iter().filter(|((kind_key, object_namespace, _), _)| {
            *kind_key == (kind.group, kind.resource) && (namespace.is_empty() || object_namespace == namespace)
        });
        (state.version, matching.map(|(_, object)| object.clone()).collect())
    }

    /// Stores the object that `change` returns for the existing one and returns it with its
    /// server-set metadata. `dry_run`: stores nothing.
    ///
    /// *Errors*: the error of `change`.
    pub(crate) fn put(
        &self,
        key: ObjectKey,
        dry_run: bool,
        change: impl FnOnce(Option<&Value>) -> Result<Value, WriteError>,
    ) -> Result<Value, WriteError> {
        let mut state = self.state.lock();
        let before = state.objects.get(&key);
        let mut object = change(before)?;
        let metadata = before.map_or_else(
            || json!({"uid": crate::ids::uid(), "creationTimestamp": crate::time::rfc3339_seconds(crate::time::now())}),
            |before| before["metadata"].clone(),
        );
        for field in ["uid", "creationTimestamp"] {
            object["metadata"][field] = metadata[field].clone();
        }
        object["metadata"]["name"] = key.2.clone().into();
        if !key.1.is_empty() {
            object["metadata"]["namespace"] = key.1.clone().into();
        }
        let version = state.version + 1;
        object["metadata"]["resourceVersion"] = version.to_string().into();
        if !dry_run {
            state.version = version;
            state.objects.insert(key, object.clone());
        }
        Ok(object)
    }

    /// Returns copies of the objects of a group and resource, with their keys.
    pub(crate) fn all(&self, group: &str, resource: &str) -> Vec<(ObjectKey, Value)> {
        let state = self.state.lock();
        let matching = state
            .objects
            .iter()
            .filter(|((kind, _, _), _)| *kind == (group, resource));
        matching.map(|(key, object)| (key.clone(), object.clone())).collect()
    }

    pub(crate) fn remove(&self, key: &ObjectKey) -> Option<Value> {
        self.state.lock().objects.remove(key)
    }
}
