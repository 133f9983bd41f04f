//! Who asks the API, and what they may do.

use serde::Deserialize;

/// One `[[users]]` entry of a scenario.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// What `TokenReview` calls whoever has the token, and what a refusal does.
    pub name: String,
    /// The token.
    pub token: String,
    /// The namespaces where they may `get` `pods/log`.
    #[serde(default)]
    pub reads: Vec<String>,
    /// Those where they may also `update` `drains`, of whatever group.
    #[serde(default)]
    pub manages: Vec<String>,
    /// What else they may do, as RBAC says it.
    #[serde(default)]
    pub rules: Vec<Rule>,
}

/// One `[[users.rules]]` entry: a rule of a Role, or of a ClusterRole where it names no namespace.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// API groups; `""` is the core group.
    pub groups: Vec<String>,
    /// Resources, a subresource as `pods/log`.
    pub resources: Vec<String>,
    /// Verbs.
    pub verbs: Vec<String>,
    /// The one namespace where it holds; absent: in all, and for the cluster.
    pub namespace: Option<String>,
}

/// What somebody wants to do. Prints as the API server tells it in a refusal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Action {
    pub(crate) verb: String,
    pub(crate) group: String,
    /// With the subresource, where there is one: `pods/log`.
    pub(crate) resource: String,
    /// Empty: of the cluster, or of all namespaces.
    pub(crate) namespace: String,
    /// Empty: of no one object.
    pub(crate) name: String,
}

impl User {
    /// Whether one of their rules allows it.
    pub(crate) fn may(&self, action: &Action) -> bool {
        let has = |namespaces: &[String]| namespaces.contains(&action.namespace);
        let reads = (&*action.group, &*action.resource, &*action.verb) == ("", "pods/log", "get")
            && (has(&self.reads) || has(&self.manages));
        let manages = !action.group.is_empty() && action.resource == "drains" && action.verb == "update";
        reads || (manages && has(&self.manages)) || self.rules.iter().any(|rule| rule.allows(action))
    }
}

impl Rule {
    pub(crate) fn allows(&self, action: &Action) -> bool {
        let names = |all: &[String], wanted: &String| all.iter().any(|one| one == wanted || one == "*");
        let within = self
            .namespace
            .as_ref()
            .is_none_or(|namespace| *namespace == action.namespace);
        within
            && names(&self.groups, &action.group)
            && names(&self.resources, &action.resource)
            && names(&self.verbs, &action.verb)
    }
}

impl std::fmt::Display for Action {
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
