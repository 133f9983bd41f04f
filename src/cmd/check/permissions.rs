//! Checks RBAC permissions: those of the service accounts, or the caller's.

use http::Request;
use kube::Client;
use serde_json::{Value, json};

use super::report::Report;
use crate::kube_client::api_error;

/// A rule that a service account needs.
struct Need {
    /// The account in deploy/base/rbac.yaml.
    account: &'static str,
    resource: &'static str,
    subresource: &'static str,
    verbs: &'static [&'static str],
    /// Whether the rule covers the registry's namespace only, instead of all namespaces.
    in_registry_namespace: bool,
}

/// The rules of deploy/base/rbac.yaml.
const NEEDS: [Need; 4] = [
    Need {
        account: "collector",
        resource: "pods",
        subresource: "",
        verbs: &["list", "watch"],
        in_registry_namespace: false,
    },
    Need {
        account: "collector",
        resource: "pods",
        subresource: "log",
        verbs: &["get"],
        in_registry_namespace: false,
    },
    Need {
        account: "streamer",
        resource: "secrets",
        subresource: "",
        verbs: &["get", "list", "watch", "create", "update", "delete"],
        in_registry_namespace: true,
    },
    Need {
        account: "sinks",
        resource: "secrets",
        subresource: "",
        verbs: &["get", "list", "watch", "create", "update"],
        in_registry_namespace: true,
    },
];

/// Checks each permission: of the accounts in a namespace, or of the caller, as far as the check
/// itself needs them. `registry` is the namespace of the registry's Secrets.
pub(super) async fn check(report: &mut Report, client: &Client, accounts: Option<&str>, registry: Option<&str>) {
    let registry = registry.or(accounts);
    let mut granted = 0;
    for need in &NEEDS {
        let user = match accounts {
            Some(namespace) => Some(format!("system:serviceaccount:{namespace}:{}", need.account)),
            // The caller's access to the registry is checked by opening it.
            None if need.in_registry_namespace => continue,
            None => None,
        };
        for verb in need.verbs {
            match is_allowed(client, user.as_deref(), need, verb, registry).await {
                Ok(true) => granted += 1,
                Ok(false) => report.fail("permissions", need.missing(user.as_deref(), verb, registry)),
                Err(cause) => {
                    report.fail(
                        "permissions",
                        format!(
                            "cannot review access to {verb} {}: {cause}; grant the caller `create` on subjectaccessreviews",
                            need.name()
                        ),
                    );
                    return;
                }
            }
        }
    }
    if granted > 0 {
        let subject = accounts.map_or_else(
            || "the caller has".to_owned(),
            |namespace| format!("the service accounts of {namespace} have"),
        );
        report.ok("permissions", format!("{subject} all {granted} permissions they need"));
    }
}

impl Need {
    fn name(&self) -> String {
        match self.subresource {
            "" => self.resource.to_owned(),
            subresource => format!("{}/{subresource}", self.resource),
        }
    }

    fn missing(&self, user: Option<&str>, verb: &str, registry: Option<&str>) -> String {
        let scope = match registry {
            Some(namespace) if self.in_registry_namespace => format!("in the namespace {namespace}"),
            _ => "in all namespaces".to_owned(),
        };
        format!(
            "{} may not {verb} {} {scope}: {}; apply the rule in deploy/base/rbac.yaml",
            user.unwrap_or("the caller"),
            self.name(),
            match (self.account, self.subresource) {
                ("collector", "log") => "the collector cannot read logs",
                ("collector", _) => "the collector cannot find containers",
                ("streamer", _) => "the streamer cannot store drains and keys",
                _ => "sinks cannot read drains or take leases",
            }
        )
    }
}

/// Asks the API server whether a user, or the caller, may do something.
///
/// *Source*: Kubernetes API, `SubjectAccessReview` and `SelfSubjectAccessReview`
/// (`authorization.k8s.io/v1`).
async fn is_allowed(
    client: &Client,
    user: Option<&str>,
    need: &Need,
    verb: &str,
    registry: Option<&str>,
) -> Result<bool, String> {
    let namespace = registry.filter(|_| need.in_registry_namespace).unwrap_or_default();
    let attributes =
        json!({"verb": verb, "resource": need.resource, "subresource": need.subresource, "namespace": namespace});
    let (kind, spec) = match user {
        Some(user) => (
            "SubjectAccessReview",
            json!({"user": user, "resourceAttributes": attributes}),
        ),
        None => ("SelfSubjectAccessReview", json!({"resourceAttributes": attributes})),
    };
    let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": kind, "spec": spec});
    let path = format!("/apis/authorization.k8s.io/v1/{}s", kind.to_lowercase());
    let request = Request::post(path).header("content-type", "application/json");
    let request = request
        .body(review.to_string().into_bytes())
        .map_err(|error| error.to_string())?;
    let review: Value = client.request(request).await.map_err(|error| api_error(&error))?;
    Ok(review["status"]["allowed"] == true)
}
