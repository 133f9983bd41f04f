//! What a client asks before it asks for pods: the version, the resources, the namespaces.

use axum::extract::{Path, RawQuery, State};
use axum::http::HeaderMap;
use axum::response::Response;
use serde_json::{Value, json};

use super::query::Query;
use super::selector::Selector;
use super::status::Status;
use super::{Client, Shared, table};
use crate::node::store::Namespace;

/// `GET /version`.
pub(super) async fn version(headers: HeaderMap) -> Response {
    let version = json!({
        "major": "1", "minor": "36", "gitVersion": "v1.36.2", "gitCommit": "", "gitTreeState": "clean",
        "buildDate": "2026-11-01T00:00:00Z", "goVersion": "go1.26.6", "compiler": "gc", "platform": "linux/amd64",
    });
    super::json(&Client::of(&headers), &version)
}

/// `GET /healthz` and its kin.
pub(super) async fn ok() -> &'static str {
    "ok"
}

/// `GET /api`.
pub(super) async fn versions(headers: HeaderMap) -> Response {
    let versions = json!({
        "kind": "APIVersions", "versions": ["v1"],
        "serverAddressByClientCIDRs": [],
    });
    super::json(&Client::of(&headers), &versions)
}

/// `GET /apis`: there are no other groups.
pub(super) async fn groups(headers: HeaderMap) -> Response {
    super::json(
        &Client::of(&headers),
        &json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": []}),
    )
}

/// `GET /api/v1`.
pub(super) async fn resources(headers: HeaderMap) -> Response {
    let resources = json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "v1",
        "resources": [
            {"name": "namespaces", "singularName": "namespace", "namespaced": false, "kind": "Namespace",
             "verbs": ["get", "list"], "shortNames": ["ns"]},
            {"name": "pods", "singularName": "pod", "namespaced": true, "kind": "Pod",
             "verbs": ["delete", "get", "list", "watch"], "shortNames": ["po"], "categories": ["all"]},
            {"name": "secrets", "singularName": "secret", "namespaced": true, "kind": "Secret",
             "verbs": ["create", "delete", "get", "list", "update", "watch"]},
            {"name": "pods/log", "singularName": "", "namespaced": true, "kind": "Pod", "verbs": ["get"]},
        ],
    });
    super::json(&Client::of(&headers), &resources)
}

/// `GET /api/v1/namespaces`.
pub(super) async fn namespaces(State(sim): Shared, RawQuery(query): RawQuery, headers: HeaderMap) -> Response {
    let client = Client::of(&headers);
    let selector = match Selector::parse(None, &Query::parse(query.as_deref())) {
        Ok(selector) => selector,
        Err(status) => return status.respond(&client),
    };
    let (version, mut namespaces) = sim.store.namespaces();
    namespaces.retain(|namespace| selector.matches_namespace(&namespace.name));
    if client.table {
        return super::json(&client, &table::of_namespaces(&namespaces, version));
    }
    let items: Vec<_> = namespaces.iter().map(|namespace| object(namespace, false)).collect();
    let list = json!({
        "kind": "NamespaceList", "apiVersion": "v1", "metadata": {"resourceVersion": version.to_string()}, "items": items,
    });
    super::json(&client, &list)
}

/// `GET /api/v1/namespaces/{namespace}`.
pub(super) async fn namespace(State(sim): Shared, Path(name): Path<String>, headers: HeaderMap) -> Response {
    let client = Client::of(&headers);
    let (version, namespaces) = sim.store.namespaces();
    let Some(namespace) = namespaces.into_iter().find(|namespace| namespace.name == name) else {
        return Status::not_found("namespaces", &name).respond(&client);
    };
    let object = if client.table {
        table::of_namespaces(&[namespace], version)
    } else {
        object(&namespace, true)
    };
    super::json(&client, &object)
}

fn object(namespace: &Namespace, typed: bool) -> Value {
    let mut object = json!({
        "metadata": {
            "name": namespace.name, "uid": namespace.uid, "resourceVersion": namespace.version.to_string(),
            "creationTimestamp": super::object::time(namespace.created),
            "labels": {"kubernetes.io/metadata.name": namespace.name},
        },
        "spec": {"finalizers": ["kubernetes"]},
        "status": {"phase": "Active"},
    });
    if typed {
        object["kind"] = "Namespace".into();
        object["apiVersion"] = "v1".into();
    }
    object
}
