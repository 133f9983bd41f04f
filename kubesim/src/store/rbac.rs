//! RBAC: evaluates the stored roles and role bindings.

use serde_json::Value;

use super::objects::{ObjectStore, RBAC};
use crate::access::{RequestAttributes, Rule};

/// Returns whether a role bound to a service account (`system:serviceaccount:NAMESPACE:NAME`)
/// allows a request.
pub(crate) fn is_allowed(objects: &ObjectStore, user: &str, attributes: &RequestAttributes) -> bool {
    let mut bindings = objects.all(RBAC, "clusterrolebindings");
    bindings.extend(objects.all(RBAC, "rolebindings"));
    let mut bound = bindings.into_iter().filter(|(_, binding)| has_subject(binding, user));
    bound.any(|((_, namespace, _), binding)| {
        let role = &binding["roleRef"];
        // A ClusterRole can be bound within a namespace.
        let (resource, role_namespace) = match role["kind"].as_str() {
            Some("ClusterRole") => ("clusterroles", String::new()),
            _ => ("roles", namespace.clone()),
        };
        let name = role["name"].as_str().unwrap_or_default().to_owned();
        let role = objects.get(&((RBAC, resource), role_namespace, name));
        let rules = role.as_ref().and_then(|role| role["rules"].as_array());
        let namespace = Some(namespace).filter(|namespace| !namespace.is_empty());
        rules
            .into_iter()
            .flatten()
            .any(|rule| parse_rule(rule, namespace.clone()).matches(attributes))
    })
}

/// Returns whether a binding has a service account as a subject.
fn has_subject(binding: &Value, user: &str) -> bool {
    let subjects = binding["subjects"].as_array().into_iter().flatten();
    let mut names = subjects
        .filter(|subject| subject["kind"] == "ServiceAccount")
        .map(|subject| {
            let text = |name: &str| subject[name].as_str().unwrap_or_default();
            format!("system:serviceaccount:{}:{}", text("namespace"), text("name"))
        });
    names.any(|name| name == user)
}

fn parse_rule(rule: &Value, namespace: Option<String>) -> Rule {
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
