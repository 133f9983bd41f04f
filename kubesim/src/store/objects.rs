//! Objects that are kept as they are declared, and bring nothing about but rights: nobody here schedules a Deployment.

use std::collections::BTreeMap;

use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::access::{Action, Rule};
use crate::store::write_error::Refused;

/// A kind that can be declared.
pub(crate) struct Kind {
    /// The API group; empty: the core group.
    pub(crate) group: &'static str,
    pub(crate) resource: &'static str,
    pub(crate) name: &'static str,
    pub(crate) namespaced: bool,
}

const fn kind(group: &'static str, resource: &'static str, name: &'static str, namespaced: bool) -> Kind {
    Kind {
        group,
        resource,
        name,
        namespaced,
    }
}

/// RBAC's group.
const RBAC: &str = "rbac.authorization.k8s.io";

/// All of them, each in its group's version `v1`.
pub(crate) const KINDS: [Kind; 15] = [
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

/// Group and resource, namespace, name.
pub(crate) type Key = ((&'static str, &'static str), String, String);

/// What was declared.
#[derive(Default)]
pub(crate) struct Declared {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<Key, Value>,
    version: u64,
}

impl Declared {
    pub(crate) fn get(&self, key: &Key) -> Option<Value> {
        self.state.lock().objects.get(key).cloned()
    }

    /// Those of a kind, of a namespace or (empty) of all; and the newest version.
    pub(crate) fn list(&self, kind: &Kind, namespace: &str) -> (u64, Vec<Value>) {
        let state = self.state.lock();
        let meant = state.objects.iter().filter(|((of, within, _), _)| {
            *of == (kind.group, kind.resource) && (namespace.is_empty() || within == namespace)
        });
        (state.version, meant.map(|(_, object)| object.clone()).collect())
    }

    /// Keeps an object as `change` makes it of the one that there is; returns it with what a server gives. `dry`: keeps nothing.
    pub(crate) fn put(
        &self,
        key: Key,
        dry: bool,
        change: impl FnOnce(Option<&Value>) -> Result<Value, Refused>,
    ) -> Result<Value, Refused> {
        let mut state = self.state.lock();
        let before = state.objects.get(&key);
        let mut object = change(before)?;
        let given = before.map_or_else(
            || json!({"uid": crate::ids::uid(), "creationTimestamp": crate::time::rfc3339_seconds(Timestamp::now())}),
            |before| before["metadata"].clone(),
        );
        for kept in ["uid", "creationTimestamp"] {
            object["metadata"][kept] = given[kept].clone();
        }
        object["metadata"]["name"] = key.2.clone().into();
        if !key.1.is_empty() {
            object["metadata"]["namespace"] = key.1.clone().into();
        }
        let version = state.version + 1;
        object["metadata"]["resourceVersion"] = version.to_string().into();
        if !dry {
            state.version = version;
            state.objects.insert(key, object.clone());
        }
        Ok(object)
    }

    pub(crate) fn remove(&self, key: &Key) -> Option<Value> {
        self.state.lock().objects.remove(key)
    }

    /// Whether a role that is bound to a service account (`system:serviceaccount:NAMESPACE:NAME`) allows it.
    pub(crate) fn allows(&self, user: &str, action: &Action) -> bool {
        let state = self.state.lock();
        let of = |resource: &'static str| {
            let all = state.objects.iter();
            all.filter(move |((of, _, _), _)| *of == (RBAC, resource))
        };
        let bindings = of("clusterrolebindings").chain(of("rolebindings"));
        bindings
            .filter(|(_, binding)| is_for(binding, user))
            .any(|((_, namespace, _), binding)| {
                let role = &binding["roleRef"];
                // A role of the cluster may be bound within a namespace.
                let (resource, within) = match role["kind"].as_str() {
                    Some("ClusterRole") => ("clusterroles", ""),
                    _ => ("roles", &**namespace),
                };
                let key = (
                    (RBAC, resource),
                    within.to_owned(),
                    role["name"].as_str().unwrap_or_default().to_owned(),
                );
                let rules = state.objects.get(&key).and_then(|role| role["rules"].as_array());
                let namespace = Some(namespace.clone()).filter(|namespace| !namespace.is_empty());
                rules
                    .into_iter()
                    .flatten()
                    .any(|rule| read_rule(rule, namespace.clone()).allows(action))
            })
    }
}

/// Whether a binding names a service account.
fn is_for(binding: &Value, user: &str) -> bool {
    let subjects = binding["subjects"].as_array().into_iter().flatten();
    let mut names = subjects
        .filter(|subject| subject["kind"] == "ServiceAccount")
        .map(|subject| {
            let text = |name: &str| subject[name].as_str().unwrap_or_default();
            format!("system:serviceaccount:{}:{}", text("namespace"), text("name"))
        });
    names.any(|name| name == user)
}

fn read_rule(rule: &Value, namespace: Option<String>) -> Rule {
    let texts = |name: &str| {
        let list = rule[name].as_array().into_iter().flatten();
        list.filter_map(|text| text.as_str().map(str::to_owned)).collect()
    };
    Rule {
        groups: texts("apiGroups"),
        resources: texts("resources"),
        verbs: texts("verbs"),
        namespace,
    }
}
