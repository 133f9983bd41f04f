//! Whether the accounts may do what they have to: those of the services, or that of who checks.

use http::Request;
use kube::Client;
use serde_json::{Value, json};

use super::report::Report;
use crate::kube_client::refusal;

/// What a service needs to be allowed.
struct Need {
    /// The account in deploy/base/rbac.yaml.
    account: &'static str,
    resource: &'static str,
    subresource: &'static str,
    verbs: &'static [&'static str],
    /// Of the registry's namespace; else of all.
    of_registry: bool,
}

/// All of them, as deploy/base/rbac.yaml gives them.
const NEEDS: [Need; 4] = [
    Need {
        account: "collector",
        resource: "pods",
        subresource: "",
        verbs: &["list", "watch"],
        of_registry: false,
    },
    Need {
        account: "collector",
        resource: "pods",
        subresource: "log",
        verbs: &["get"],
        of_registry: false,
    },
    Need {
        account: "streamer",
        resource: "secrets",
        subresource: "",
        verbs: &["get", "list", "watch", "create", "update", "delete"],
        of_registry: true,
    },
    Need {
        account: "sinks",
        resource: "secrets",
        subresource: "",
        verbs: &["get", "list", "watch", "create", "update"],
        of_registry: true,
    },
];

/// Asks the API for each right: of the accounts of a namespace, or else, as far as the check needs them, of who asks. `registry` is the namespace of the Secrets, where they are
/// in such.
pub(super) async fn look(report: &mut Report, client: &Client, accounts: Option<&str>, registry: Option<&str>) {
    let registry = registry.or(accounts);
    let mut allowed = 0;
    for need in &NEEDS {
        // Who checks reads containers; the registry is opened as itself.
        let whose = match accounts {
            Some(namespace) => Some(format!("system:serviceaccount:{namespace}:{}", need.account)),
            None if need.of_registry => continue,
            None => None,
        };
        for verb in need.verbs {
            match is_allowed(client, whose.as_deref(), need, verb, registry).await {
                Ok(true) => allowed += 1,
                Ok(false) => report.fault("rights", need.missing(whose.as_deref(), verb, registry)),
                Err(why) => {
                    report.fault(
                        "rights",
                        format!("the API does not tell who may {verb} {}: {why}", need.name()),
                    );
                    return;
                }
            }
        }
    }
    if allowed > 0 {
        let whose = accounts.map_or_else(
            || "who checks".to_owned(),
            |namespace| format!("the accounts of {namespace}"),
        );
        report.ok("rights", format!("{whose}: {allowed} as needed"));
    }
}

impl Need {
    fn name(&self) -> String {
        match self.subresource {
            "" => self.resource.to_owned(),
            subresource => format!("{}/{subresource}", self.resource),
        }
    }

    fn missing(&self, whose: Option<&str>, verb: &str, registry: Option<&str>) -> String {
        let scope = match registry {
            Some(namespace) if self.of_registry => format!("in the namespace {namespace}"),
            _ => "in all namespaces".to_owned(),
        };
        format!(
            "{} may not {verb} {} {scope}: {} (deploy/base/rbac.yaml has the rule)",
            whose.unwrap_or("who checks"),
            self.name(),
            match (self.account, self.subresource) {
                ("collector", "log") => "no line is read",
                ("collector", _) => "no container is found",
                ("streamer", _) => "drains and keys cannot be kept",
                _ => "drains cannot be read, or shared",
            }
        )
    }
}

/// *Source*: `SelfSubjectAccessReview` of who asks, `SubjectAccessReview` of others (`authorization.k8s.io/v1`).
async fn is_allowed(
    client: &Client,
    whose: Option<&str>,
    need: &Need,
    verb: &str,
    registry: Option<&str>,
) -> Result<bool, String> {
    let namespace = registry.filter(|_| need.of_registry).unwrap_or_default();
    let asked =
        json!({"verb": verb, "resource": need.resource, "subresource": need.subresource, "namespace": namespace});
    let (kind, spec) = match whose {
        Some(user) => (
            "SubjectAccessReview",
            json!({"user": user, "resourceAttributes": asked}),
        ),
        None => ("SelfSubjectAccessReview", json!({"resourceAttributes": asked})),
    };
    let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": kind, "spec": spec});
    let path = format!("/apis/authorization.k8s.io/v1/{}s", kind.to_lowercase());
    let request = Request::post(path).header("content-type", "application/json");
    let request = request
        .body(review.to_string().into_bytes())
        .map_err(|error| error.to_string())?;
    let review: Value = client.request(request).await.map_err(|error| refusal(&error))?;
    Ok(review["status"]["allowed"] == true)
}
