//! What a client asks before it asks for pods: the version, the resources, the namespaces.

use std::collections::BTreeSet;

use axum::body::Bytes;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde_json::{Value, json};

use super::query::Query;
use super::selector::Selector;
use super::status::{self, Status};
use super::{Client, Shared, objects, table};
use crate::store::objects::KINDS;
use crate::store::pods::Namespace;

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

/// `GET /apis`: the groups of what can be declared.
pub(super) async fn groups(headers: HeaderMap) -> Response {
    let names: BTreeSet<&str> = KINDS
        .iter()
        .map(|kind| kind.group)
        .filter(|group| !group.is_empty())
        .collect();
    let groups: Vec<Value> = names
        .into_iter()
        .map(|name| {
            let version = json!({"groupVersion": format!("{name}/v1"), "version": "v1"});
            json!({"name": name, "versions": [version], "preferredVersion": version})
        })
        .collect();
    super::json(
        &Client::of(&headers),
        &json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}),
    )
}

/// `GET /api/v1`.
pub(super) async fn resources(headers: HeaderMap) -> Response {
    let mut resources = json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "v1",
        "resources": [
            {"name": "namespaces", "singularName": "namespace", "namespaced": false, "kind": "Namespace",
             "verbs": ["create", "get", "list", "patch"], "shortNames": ["ns"]},
            {"name": "pods", "singularName": "pod", "namespaced": true, "kind": "Pod",
             "verbs": ["delete", "get", "list", "watch"], "shortNames": ["po"], "categories": ["all"]},
            {"name": "secrets", "singularName": "secret", "namespaced": true, "kind": "Secret",
             "verbs": ["create", "delete", "get", "list", "update", "watch"]},
            {"name": "pods/log", "singularName": "", "namespaced": true, "kind": "Pod", "verbs": ["get"]},
        ],
    });
    if let Some(list) = resources["resources"].as_array_mut() {
        list.extend(KINDS.iter().filter(|kind| kind.group.is_empty()).map(objects::resource));
    }
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

/// `POST /api/v1/namespaces`: of what is declared of it, its name is kept.
pub(super) async fn create_namespace(State(sim): Shared, headers: HeaderMap, body: Bytes) -> Response {
    let client = Client::of(&headers);
    let object: Value = serde_json::from_slice(&body).unwrap_or_default();
    match object["metadata"]["name"].as_str().filter(|name| !name.is_empty()) {
        Some(name) => {
            sim.store.create_namespace(name);
            status::answer(StatusCode::CREATED, client.print(&object))
        }
        None => Status::unrecognized().respond(&client),
    }
}

/// `GET /api/v1/namespaces/{namespace}`, and what a change of what is declared of it comes to.
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
            "creationTimestamp": crate::time::rfc3339_seconds(namespace.created),
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
