//! Stored objects without behaviour: the requests of `kubectl apply`, `get` and `delete`.

use std::sync::Arc;

use axum::body::{Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde_json::{Value, json};

use super::authorize;
use super::query::Query;
use super::response::{ResponseFormat, SimState, json_response, ok_json};
use super::status::Status;
use crate::simulation::Simulation;
use crate::store::objects::{KINDS, ObjectKey, ResourceKind};
use crate::store::write_error::WriteError;

/// Maximum size of an object: etcd's request limit.
const MAX_BYTES: usize = 1_500_000;

/// Annotation in which `kubectl apply` stores the applied object.
const APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Handles every path without a dedicated route.
pub(super) async fn serve(State(sim): SimState, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let format = ResponseFormat::from_headers(&head.headers);
    let query = Query::parse(head.uri.query());
    let path = head.uri.path().trim_matches('/');
    if let ["apis", group, "v1"] = &*path.split('/').collect::<Vec<_>>() {
        return resources(group, &format);
    }
    let attributes = authorize::request_attributes(&head.method, head.uri.path(), query.flag("watch"));
    let found = attributes.and_then(|attributes| {
        let kind = KINDS
            .iter()
            .find(|kind| (kind.group, kind.resource) == (&*attributes.group, &*attributes.resource))?;
        // A list can span all namespaces; a single object must match the scope of its kind.
        let fits = attributes.namespace.is_empty() != kind.namespaced
            || (attributes.name.is_empty() && attributes.verb == "list");
        fits.then_some((kind, attributes))
    });
    let Some((kind, attributes)) = found else {
        return Status::no_such_path().respond(&format);
    };
    let body = to_bytes(body, MAX_BYTES).await.unwrap_or_default();
    let key: ObjectKey = ((kind.group, kind.resource), attributes.namespace, attributes.name);
    let dry_run = query.non_empty("dryRun").is_some();
    let result = match &*attributes.verb {
        "list" => Ok(list(&sim, kind, &key.1)),
        "get" => sim
            .objects
            .get(&key)
            .ok_or_else(|| Status::not_found(kind.resource, &key.2)),
        "create" => create(&sim, kind, key, dry_run, &body),
        "update" | "patch" => update(&sim, kind, key, dry_run, &head.headers, &body),
        "delete" => delete(&sim, kind, &key),
        _ => Err(Status::method_not_allowed()),
    };
    match result {
        Ok(object) if attributes.verb == "create" => json_response(StatusCode::CREATED, format.print(&object)),
        Ok(object) => ok_json(&format, &object),
        Err(status) => status.respond(&format),
    }
}

/// Returns a kind's entry in discovery.
pub(super) fn resource(kind: &ResourceKind) -> Value {
    json!({
        "name": kind.resource, "singularName": kind.name.to_lowercase(), "namespaced": kind.namespaced, "kind": kind.name,
        "verbs": ["create", "delete", "get", "list", "patch", "update"],
    })
}

/// `GET /apis/{group}/v1`.
fn resources(group: &str, format: &ResponseFormat) -> Response {
    let all: Vec<Value> = KINDS.iter().filter(|kind| kind.group == group).map(resource).collect();
    if all.is_empty() {
        return Status::no_such_path().respond(format);
    }
    let list = json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": format!("{group}/v1"), "resources": all,
    });
    ok_json(format, &list)
}

fn list(sim: &Arc<Simulation>, kind: &ResourceKind, namespace: &str) -> Value {
    let (version, items) = sim.objects.list(kind, namespace);
    json!({
        "kind": format!("{}List", kind.name), "apiVersion": api_version(kind),
        "metadata": {"resourceVersion": version.to_string()}, "items": items,
    })
}

fn create(
    sim: &Arc<Simulation>,
    kind: &ResourceKind,
    mut key: ObjectKey,
    dry_run: bool,
    body: &Bytes,
) -> Result<Value, Status> {
    let object = parse_object(kind, body)?;
    object["metadata"]["name"]
        .as_str()
        .unwrap_or_default()
        .clone_into(&mut key.2);
    let name = key.2.clone();
    let created = sim.objects.put(key, dry_run, |before| match before {
        Some(_) => Err(WriteError::AlreadyExists),
        None => Ok(object),
    });
    created.map_err(|error| Status::from_write_error(&error, kind.resource, &name))
}

/// Handles `PUT` and `PATCH`: a whole object, a merge patch (RFC 7396), a server-side apply, or the
/// strategic merge patch of `kubectl apply`, which contains the whole object in an annotation if it
/// changed. Lists in other patches replace the stored list.
fn update(
    sim: &Arc<Simulation>,
    kind: &ResourceKind,
    key: ObjectKey,
    dry_run: bool,
    headers: &HeaderMap,
    body: &Bytes,
) -> Result<Value, Status> {
    let content_type = headers
        .get(CONTENT_TYPE)
        .and_then(|content_type| content_type.to_str().ok())
        .unwrap_or_default();
    let (is_merge, is_apply) = (
        content_type.contains("merge-patch"),
        content_type.contains("apply-patch"),
    );
    let body_object: Value = serde_json::from_slice(body).map_err(|_| Status::unrecognized())?;
    let name = key.2.clone();
    let updated = sim.objects.put(key, dry_run, |before| match before {
        Some(_) if is_merge && !body_object["metadata"]["annotations"][APPLIED].is_null() => {
            applied_object(&body_object)
        }
        Some(before) if is_merge => {
            let mut object = before.clone();
            merge(&mut object, &body_object);
            Ok(object)
        }
        Some(_) => Ok(body_object),
        None if is_apply => Ok(body_object),
        None => Err(WriteError::NotFound),
    });
    updated.map_err(|error| Status::from_write_error(&error, kind.resource, &name))
}

fn delete(sim: &Arc<Simulation>, kind: &ResourceKind, key: &ObjectKey) -> Result<Value, Status> {
    let removed = sim
        .objects
        .remove(key)
        .ok_or_else(|| Status::not_found(kind.resource, &key.2))?;
    let details = json!({"name": key.2, "group": kind.group, "kind": kind.resource, "uid": removed["metadata"]["uid"]});
    Ok(json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}))
}

/// Parses an object; it must have this kind and a name.
///
/// *Errors*: 400.
fn parse_object(kind: &ResourceKind, body: &Bytes) -> Result<Value, Status> {
    let object: Value = serde_json::from_slice(body).map_err(|_| Status::unrecognized())?;
    let is_kind = object["kind"] == kind.name && object["apiVersion"] == api_version(kind);
    let has_name = object["metadata"]["name"].as_str().is_some_and(|name| !name.is_empty());
    if is_kind && has_name {
        Ok(object)
    } else {
        Err(Status::unrecognized())
    }
}

/// Returns the object that was passed to `kubectl apply`, from the annotation in its patch.
fn applied_object(patch: &Value) -> Result<Value, WriteError> {
    let text = &patch["metadata"]["annotations"][APPLIED];
    let object = text.as_str().and_then(|text| serde_json::from_str::<Value>(text).ok());
    let mut object = object.ok_or(WriteError::Conflict)?;
    object["metadata"]["annotations"][APPLIED] = text.clone();
    Ok(object)
}

/// Applies a merge patch (RFC 7396); directives (`$patch`) are ignored.
fn merge(object: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *object = patch.clone();
        return;
    };
    if !object.is_object() {
        *object = json!({});
    }
    for (name, value) in patch.iter().filter(|(name, _)| !name.starts_with('$')) {
        match (value, object.as_object_mut()) {
            (Value::Null, Some(object)) => drop(object.remove(name)),
            _ => merge(&mut object[name], value),
        }
    }
}

fn api_version(kind: &ResourceKind) -> String {
    if kind.group.is_empty() {
        "v1".to_owned()
    } else {
        format!("{}/v1", kind.group)
    }
}
