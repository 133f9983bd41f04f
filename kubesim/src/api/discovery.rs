//! Version, health checks and API discovery.

use std::collections::BTreeSet;

use axum::http::HeaderMap;
use axum::response::Response;
use serde_json::{Value, json};

use super::objects;
use super::response::{ResponseFormat, ok_json};
use crate::store::objects::KINDS;

/// `GET /version`.
pub(super) async fn version(headers: HeaderMap) -> Response {
    let version = json!({
        "major": "1", "minor": "36", "gitVersion": "v1.36.2", "gitCommit": "", "gitTreeState": "clean",
        "buildDate": "2026-11-01T00:00:00Z", "goVersion": "go1.26.6", "compiler": "gc", "platform": "linux/amd64",
    });
    ok_json(&ResponseFormat::from_headers(&headers), &version)
}

/// `GET /healthz`, `/livez` and `/readyz`.
pub(super) async fn ok() -> &'static str {
    "ok"
}

/// `GET /api`.
pub(super) async fn versions(headers: HeaderMap) -> Response {
    let versions = json!({
        "kind": "APIVersions", "versions": ["v1"],
        "serverAddressByClientCIDRs": [],
    });
    ok_json(&ResponseFormat::from_headers(&headers), &versions)
}

/// `GET /apis`: the groups of the stored kinds.
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
    ok_json(
        &ResponseFormat::from_headers(&headers),
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
    ok_json(&ResponseFormat::from_headers(&headers), &resources)
}
