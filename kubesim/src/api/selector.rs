//! Namespace, field selector and label selector of a request.

use serde_json::Value;

use super::query::Query;
use super::status::Status;
use crate::store::pod::Pod;

/// A selection of objects.
#[derive(Debug, Default)]
pub(crate) struct Selector {
    namespace: Option<String>,
    fields: Vec<Requirement>,
    labels: Vec<Requirement>,
}

#[derive(Debug)]
struct Requirement {
    key: String,
    operator: Operator,
}

#[derive(Debug)]
enum Operator {
    Equals(String),
    Differs(String),
    Exists,
    Absent,
}

impl Selector {
    /// Parses the selectors of a request.
    ///
    /// *Errors*: 400 for an unsupported field or an invalid selector. Label selectors support `=`,
    /// `==`, `!=`, `key` and `!key`, not `in` and `notin`.
    pub(crate) fn parse(namespace: Option<String>, query: &Query) -> Result<Self, Status> {
        let fields = requirements(query.value("fieldSelector"))?;
        if let Some(unknown) = fields
            .iter()
            .find(|requirement| !FIELDS.contains(&requirement.key.as_str()))
        {
            return Err(Status::bad_request(format!(
                "field label not supported: {}",
                unknown.key
            )));
        }
        Ok(Self {
            namespace,
            fields,
            labels: requirements(query.value("labelSelector"))?,
        })
    }

    /// Returns whether a namespace matches; its only label is its name.
    pub(crate) fn matches_namespace(&self, name: &str) -> bool {
        let label = |requirement: &Requirement| (requirement.key == "kubernetes.io/metadata.name").then_some(name);
        self.labels
            .iter()
            .all(|requirement| requirement.matches(label(requirement)))
    }

    /// Returns whether an object matches, by its metadata.
    pub(crate) fn matches_object(&self, object: &Value) -> bool {
        let metadata = &object["metadata"];
        let field = |key: &str| metadata[key.trim_start_matches("metadata.")].as_str();
        let label = |key: &str| metadata["labels"][key].as_str();
        let namespace = self.namespace.as_deref();
        namespace.is_none_or(|namespace| metadata["namespace"] == namespace)
            && self
                .fields
                .iter()
                .all(|requirement| requirement.matches(field(&requirement.key)))
            && self
                .labels
                .iter()
                .all(|requirement| requirement.matches(label(&requirement.key)))
    }

    /// Returns whether a pod matches.
    pub(crate) fn matches(&self, pod: &Pod) -> bool {
        self.namespace
            .as_ref()
            .is_none_or(|namespace| *namespace == pod.namespace)
            && self
                .fields
                .iter()
                .all(|requirement| requirement.matches(Some(field(pod, &requirement.key))))
            && self
                .labels
                .iter()
                .all(|requirement| requirement.matches(pod.labels.get(&requirement.key).map(String::as_str)))
    }
}

impl Requirement {
    fn matches(&self, value: Option<&str>) -> bool {
        match &self.operator {
            Operator::Equals(expected) => value == Some(expected),
            Operator::Differs(expected) => value != Some(expected),
            Operator::Exists => value.is_some(),
            Operator::Absent => value.is_none(),
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
    let (key, operator) = if let Some((key, value)) = term.split_once("!=") {
        (key, Operator::Differs(value.trim().to_owned()))
    } else if let Some((key, value)) = term.split_once('=') {
        (key, Operator::Equals(value.trim_start_matches('=').trim().to_owned()))
    } else if let Some(key) = term.strip_prefix('!') {
        (key, Operator::Absent)
    } else {
        (term, Operator::Exists)
    };
    let key = key.trim();
    if key.is_empty() || key.contains([' ', '(', ')']) {
        return Err(Status::bad_request(format!("unable to parse requirement: {term}")));
    }
    Ok(Requirement {
        key: key.to_owned(),
        operator,
    })
}

fn field<'a>(pod: &'a Pod, key: &str) -> &'a str {
    match key {
        "metadata.name" => &pod.name,
        "metadata.namespace" => &pod.namespace,
        "spec.nodeName" => &pod.node,
        "spec.restartPolicy" => pod.restart_policy().as_str(),
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
