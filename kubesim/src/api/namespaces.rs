//! Namespaces: list, create and get.

use axum::body::Bytes;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde_json::{Value, json};

use super::query::Query;
use super::response::{ResponseFormat, SimState, json_response, ok_json};
use super::selector::Selector;
use super::status::Status;
use super::table;
use crate::store::pods::Namespace;

/// `GET /api/v1/namespaces`.
pub(super) async fn list(State(sim): SimState, RawQuery(query): RawQuery, headers: HeaderMap) -> Response {
    let format = ResponseFormat::from_headers(&headers);
    let selector = match Selector::parse(None, &Query::parse(query.as_deref())) {
        Ok(selector) => selector,
        Err(status) => return status.respond(&format),
    };
    let (version, mut namespaces) = sim.pods.namespaces();
    namespaces.retain(|namespace| selector.matches_namespace(&namespace.name));
    if format.table {
        return ok_json(&format, &table::namespaces_table(&namespaces, version));
    }
    let items: Vec<_> = namespaces.iter().map(|namespace| object(namespace, false)).collect();
    let list = json!({
        "kind": "NamespaceList", "apiVersion": "v1", "metadata": {"resourceVersion": version.to_string()}, "items": items,
    });
    ok_json(&format, &list)
}

/// `POST /api/v1/namespaces`; only the name is stored.
pub(super) async fn create(State(sim): SimState, headers: HeaderMap, body: Bytes) -> Response {
    let format = ResponseFormat::from_headers(&headers);
    let object: Value = serde_json::from_slice(&body).unwrap_or_default();
    match object["metadata"]["name"].as_str().filter(|name| !name.is_empty()) {
        Some(name) => {
            sim.pods.create_namespace(name);
            json_response(StatusCode::CREATED, format.print(&object))
        }
        None => Status::unrecognized().respond(&format),
    }
}

/// `GET` and `PATCH /api/v1/namespaces/{namespace}`; a patch changes nothing.
pub(super) async fn read(State(sim): SimState, Path(name): Path<String>, headers: HeaderMap) -> Response {
    let format = ResponseFormat::from_headers(&headers);
    let (version, namespaces) = sim.pods.namespaces();
    let Some(namespace) = namespaces.into_iter().find(|namespace| namespace.name == name) else {
        return Status::not_found("namespaces", &name).respond(&format);
    };
    let object = if format.table {
        table::namespaces_table(&[namespace], version)
    } else {
        object(&namespace, true)
    };
    ok_json(&format, &object)
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
