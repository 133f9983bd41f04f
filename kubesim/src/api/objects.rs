//! Objects as they are declared: what `kubectl apply` needs, and what its groups are called.

use std::sync::Arc;

use axum::body::{Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde_json::{Value, json};

use super::query::Query;
use super::status::{self, Status};
use super::{Client, Shared, authorize};
use crate::simulation::Sim;
use crate::store::objects::{KINDS, Key, Kind};
use crate::store::write_error::Refused;

/// The largest object that is taken: what etcd takes.
const MAX_BYTES: usize = 1_500_000;

/// Where `kubectl apply` keeps what it was given.
const APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Whatever has no route of its own.
pub(super) async fn serve(State(sim): Shared, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let client = Client::of(&head.headers);
    let query = Query::parse(head.uri.query());
    let path = head.uri.path().trim_matches('/');
    if let ["apis", group, "v1"] = &*path.split('/').collect::<Vec<_>>() {
        return resources(group, &client);
    }
    let action = authorize::action(&head.method, head.uri.path(), query.flag("watch"));
    let found = action.and_then(|action| {
        let kind = KINDS
            .iter()
            .find(|kind| (kind.group, kind.resource) == (&*action.group, &*action.resource))?;
        // A list may be of all namespaces; one object is where its kind is.
        let fits = action.namespace.is_empty() != kind.namespaced || (action.name.is_empty() && action.verb == "list");
        fits.then_some((kind, action))
    });
    let Some((kind, action)) = found else {
        return Status::no_such_path().respond(&client);
    };
    let body = to_bytes(body, MAX_BYTES).await.unwrap_or_default();
    let key: Key = ((kind.group, kind.resource), action.namespace, action.name);
    let dry = query.filled("dryRun").is_some();
    let answered = match &*action.verb {
        "list" => Ok(list(&sim, kind, &key.1)),
        "get" => sim
            .declared
            .get(&key)
            .ok_or_else(|| Status::not_found(kind.resource, &key.2)),
        "create" => create(&sim, kind, key, dry, &body),
        "update" | "patch" => change(&sim, kind, key, dry, &head.headers, &body),
        "delete" => remove(&sim, kind, &key),
        _ => Err(Status::method_not_allowed()),
    };
    match answered {
        Ok(object) if action.verb == "create" => status::answer(StatusCode::CREATED, client.print(&object)),
        Ok(object) => super::json(&client, &object),
        Err(status) => status.respond(&client),
    }
}

/// What is told of a kind in discovery.
pub(super) fn resource(kind: &Kind) -> Value {
    json!({
        "name": kind.resource, "singularName": kind.name.to_lowercase(), "namespaced": kind.namespaced, "kind": kind.name,
        "verbs": ["create", "delete", "get", "list", "patch", "update"],
    })
}

/// `GET /apis/{group}/v1`.
fn resources(group: &str, client: &Client) -> Response {
    let all: Vec<Value> = KINDS.iter().filter(|kind| kind.group == group).map(resource).collect();
    if all.is_empty() {
        return Status::no_such_path().respond(client);
    }
    let list = json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": format!("{group}/v1"), "resources": all,
    });
    super::json(client, &list)
}

fn list(sim: &Arc<Sim>, kind: &Kind, namespace: &str) -> Value {
    let (version, items) = sim.declared.list(kind, namespace);
    json!({
        "kind": format!("{}List", kind.name), "apiVersion": api_version(kind),
        "metadata": {"resourceVersion": version.to_string()}, "items": items,
    })
}

fn create(sim: &Arc<Sim>, kind: &Kind, mut key: Key, dry: bool, body: &Bytes) -> Result<Value, Status> {
    let object = read(kind, body)?;
    object["metadata"]["name"]
        .as_str()
        .unwrap_or_default()
        .clone_into(&mut key.2);
    let name = key.2.clone();
    let made = sim.declared.put(key, dry, |before| match before {
        Some(_) => Err(Refused::Exists),
        None => Ok(object),
    });
    made.map_err(|refused| Status::refused(&refused, kind.resource, &name))
}

/// A whole object, a merge patch (RFC 7396), one that is to be applied, or what `kubectl apply` sends: a strategic merge patch, which has the whole object in an annotation wherever
/// what was declared has changed. Of such a patch without it, lists are taken whole.
fn change(
    sim: &Arc<Sim>,
    kind: &Kind,
    key: Key,
    dry: bool,
    headers: &HeaderMap,
    body: &Bytes,
) -> Result<Value, Status> {
    let form = headers
        .get(CONTENT_TYPE)
        .and_then(|form| form.to_str().ok())
        .unwrap_or_default();
    let (merges, applies) = (form.contains("merge-patch"), form.contains("apply-patch"));
    let given: Value = serde_json::from_slice(body).map_err(|_| Status::unrecognized())?;
    let name = key.2.clone();
    let changed = sim.declared.put(key, dry, |before| match before {
        Some(_) if merges && !given["metadata"]["annotations"][APPLIED].is_null() => applied(&given),
        Some(before) if merges => {
            let mut object = before.clone();
            merge(&mut object, &given);
            Ok(object)
        }
        Some(_) => Ok(given),
        None if applies => Ok(given),
        None => Err(Refused::Missing),
    });
    changed.map_err(|refused| Status::refused(&refused, kind.resource, &name))
}

fn remove(sim: &Arc<Sim>, kind: &Kind, key: &Key) -> Result<Value, Status> {
    let removed = sim
        .declared
        .remove(key)
        .ok_or_else(|| Status::not_found(kind.resource, &key.2))?;
    let details = json!({"name": key.2, "group": kind.group, "kind": kind.resource, "uid": removed["metadata"]["uid"]});
    Ok(json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}))
}

/// An object of this kind that has a name, or 400.
fn read(kind: &Kind, body: &Bytes) -> Result<Value, Status> {
    let object: Value = serde_json::from_slice(body).map_err(|_| Status::unrecognized())?;
    let is_meant = object["kind"] == kind.name && object["apiVersion"] == api_version(kind);
    let is_named = object["metadata"]["name"].as_str().is_some_and(|name| !name.is_empty());
    if is_meant && is_named {
        Ok(object)
    } else {
        Err(Status::unrecognized())
    }
}

/// The object that `kubectl apply` was given, from the patch that it made of it.
fn applied(patch: &Value) -> Result<Value, Refused> {
    let text = &patch["metadata"]["annotations"][APPLIED];
    let object = text.as_str().and_then(|text| serde_json::from_str::<Value>(text).ok());
    let mut object = object.ok_or(Refused::Conflict)?;
    object["metadata"]["annotations"][APPLIED] = text.clone();
    Ok(object)
}

/// RFC 7396; directives (`$patch`) are no part of an object.
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

fn api_version(kind: &Kind) -> String {
    if kind.group.is_empty() {
        "v1".to_owned()
    } else {
        format!("{}/v1", kind.group)
    }
}
