//! Users of the API and what they are allowed to do.

use serde::Deserialize;

/// One `[[users]]` entry of a scenario.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// User name that `TokenReview` returns and 403 messages contain.
    pub name: String,
    /// Bearer token.
    pub token: String,
    /// Namespaces in which the user may `get` `pods/log`.
    #[serde(default)]
    pub reads: Vec<String>,
    /// Namespaces in which the user may `get` `pods/log` and `update` `drains` of any API group.
    #[serde(default)]
    pub manages: Vec<String>,
    /// Further permissions, as RBAC rules.
    #[serde(default)]
    pub rules: Vec<Rule>,
}

/// One `[[users.rules]]` entry: a rule of a Role, or of a ClusterRole if it has no namespace.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// API groups; `""` is the core group, `"*"` matches all.
    pub groups: Vec<String>,
    /// Resources, with subresources as `pods/log`; `"*"` matches all.
    pub resources: Vec<String>,
    /// Verbs; `"*"` matches all.
    pub verbs: Vec<String>,
    /// Namespace to which the rule is limited; `None`: all namespaces and cluster-scoped resources.
    pub namespace: Option<String>,
}

/// What a request wants to do. `Display` is the API server's wording in a 403 message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RequestAttributes {
    pub(crate) verb: String,
    pub(crate) group: String,
    /// With the subresource if there is one: `pods/log`.
    pub(crate) resource: String,
    /// Empty: cluster-scoped, or all namespaces.
    pub(crate) namespace: String,
    /// Empty: no single object.
    pub(crate) name: String,
}

impl User {
    /// Returns whether the user's own permissions allow a request.
    pub(crate) fn is_allowed(&self, attributes: &RequestAttributes) -> bool {
        let has = |namespaces: &[String]| namespaces.contains(&attributes.namespace);
        let reads = (&*attributes.group, &*attributes.resource, &*attributes.verb) == ("", "pods/log", "get")
            && (has(&self.reads) || has(&self.manages));
        let manages = !attributes.group.is_empty() && attributes.resource == "drains" && attributes.verb == "update";
        reads || (manages && has(&self.manages)) || self.rules.iter().any(|rule| rule.matches(attributes))
    }
}

impl Rule {
    pub(crate) fn matches(&self, attributes: &RequestAttributes) -> bool {
        let contains = |all: &[String], value: &String| all.iter().any(|one| one == value || one == "*");
        let in_namespace = self
            .namespace
            .as_ref()
            .is_none_or(|namespace| *namespace == attributes.namespace);
        in_namespace
            && contains(&self.groups, &attributes.group)
            && contains(&self.resources, &attributes.resource)
            && contains(&self.verbs, &attributes.verb)
    }
}

impl std::fmt::Display for RequestAttributes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            verb,
            group,
            resource,
            namespace,
            ..
        } = self;
        write!(f, "cannot {verb} resource {resource:?} in API group {group:?} ")?;
        if namespace.is_empty() {
            f.write_str("at the cluster scope")
        } else {
            write!(f, "in the namespace {namespace:?}")
        }
    }
}
