//! Which pods, or Secrets, a request means: its namespace, field selector and label selector.

use serde_json::Value;

use super::query::Query;
use super::status::Status;
use crate::store::pod::Pod;

/// A selection of pods.
#[derive(Debug, Default)]
pub(crate) struct Selector {
    namespace: Option<String>,
    fields: Vec<Requirement>,
    labels: Vec<Requirement>,
}

#[derive(Debug)]
struct Requirement {
    key: String,
    test: Test,
}

#[derive(Debug)]
enum Test {
    Equals(String),
    Differs(String),
    Exists,
    Absent,
}

impl Selector {
    /// Reads the selectors of a request.
    ///
    /// *Errors*: 400 for a field that pods cannot be selected by, or for a selector that is none. Of label selectors
    /// `=`, `==`, `!=`, `key` and `!key` are known; sets (`in`, `notin`) are not.
    pub(crate) fn parse(namespace: Option<String>, query: &Query) -> Result<Self, Status> {
        let fields = requirements(query.text("fieldSelector"))?;
        if let Some(unknown) = fields.iter().find(|own| !FIELDS.contains(&own.key.as_str())) {
            return Err(Status::bad_request(format!(
                "field label not supported: {}",
                unknown.key
            )));
        }
        Ok(Self {
            namespace,
            fields,
            labels: requirements(query.text("labelSelector"))?,
        })
    }

    /// Says whether a namespace is meant: its only label is its name.
    pub(crate) fn matches_namespace(&self, name: &str) -> bool {
        let label = |own: &Requirement| (own.key == "kubernetes.io/metadata.name").then_some(name);
        self.labels.iter().all(|own| own.holds(label(own)))
    }

    /// Says whether an object is meant, by its metadata; of fields there are those.
    pub(crate) fn matches_object(&self, object: &Value) -> bool {
        let metadata = &object["metadata"];
        let field = |key: &str| metadata[key.trim_start_matches("metadata.")].as_str();
        let label = |key: &str| metadata["labels"][key].as_str();
        let namespace = self.namespace.as_deref();
        namespace.is_none_or(|namespace| metadata["namespace"] == namespace)
            && self.fields.iter().all(|own| own.holds(field(&own.key)))
            && self.labels.iter().all(|own| own.holds(label(&own.key)))
    }

    /// Says whether a pod is meant.
    pub(crate) fn matches(&self, pod: &Pod) -> bool {
        self.namespace
            .as_ref()
            .is_none_or(|namespace| *namespace == pod.namespace)
            && self.fields.iter().all(|own| own.holds(Some(field(pod, &own.key))))
            && self
                .labels
                .iter()
                .all(|own| own.holds(pod.labels.get(&own.key).map(String::as_str)))
    }
}

impl Requirement {
    fn holds(&self, value: Option<&str>) -> bool {
        match &self.test {
            Test::Equals(wanted) => value == Some(wanted),
            Test::Differs(unwanted) => value != Some(unwanted),
            Test::Exists => value.is_some(),
            Test::Absent => value.is_none(),
        }
    }
}

fn requirements(text: Option<&str>) -> Result<Vec<Requirement>, Status> {
    let terms = text
        .unwrap_or_default()
        .split(',')
        .map(str::trim)
        .filter(|term| !term.is_empty());
    terms.map(requirement).collect()
}

fn requirement(term: &str) -> Result<Requirement, Status> {
    let (key, test) = if let Some((key, value)) = term.split_once("!=") {
        (key, Test::Differs(value.trim().to_owned()))
    } else if let Some((key, value)) = term.split_once('=') {
        (key, Test::Equals(value.trim_start_matches('=').trim().to_owned()))
    } else if let Some(key) = term.strip_prefix('!') {
        (key, Test::Absent)
    } else {
        (term, Test::Exists)
    };
    let key = key.trim();
    if key.is_empty() || key.contains([' ', '(', ')']) {
        return Err(Status::bad_request(format!("unable to parse requirement: {term}")));
    }
    Ok(Requirement {
        key: key.to_owned(),
        test,
    })
}

fn field<'a>(pod: &'a Pod, key: &str) -> &'a str {
    match key {
        "metadata.name" => &pod.name,
        "metadata.namespace" => &pod.namespace,
        "spec.nodeName" => &pod.node,
        "spec.restartPolicy" => pod.restart().as_str(),
        "status.phase" => pod.phase.as_str(),
        "status.podIP" => pod.ip.as_deref().unwrap_or_default(),
        _ => "",
    }
}

const FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "spec.nodeName",
    "spec.restartPolicy",
    "status.phase",
    "status.podIP",
];
