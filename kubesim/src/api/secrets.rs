//! Secrets: list, watch, get, create, replace and delete.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde_json::{Value, json};
use tokio::sync::watch::Receiver;

use super::query::Query;
use super::response::{ResponseFormat, SimState, json_response, ok_json};
use super::selector::Selector;
use super::status::{Cause, Status};
use super::watch::{Watch, WatchSource};
use crate::simulation::Simulation;
use crate::store::history::{Change, VersionTooOld};

/// `GET /api/v1/namespaces/{namespace}/secrets`, also with `watch`.
pub(super) async fn list(
    State(sim): SimState,
    Path(namespace): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let format = ResponseFormat::from_headers(&headers);
    let query = Query::parse(query.as_deref());
    let answer = Selector::parse(Some(namespace), &query).and_then(|selector| {
        if query.flag("watch") {
            return Watch::open(&sim, &query, selector, SecretSource).map(Watch::respond);
        }
        let (version, objects) = sim.secrets.list();
        let matching = objects.iter().filter(|object| selector.matches_object(object));
        let objects: Vec<&Value> = matching.map(AsRef::as_ref).collect();
        let list = json!({
            "kind": "SecretList", "apiVersion": "v1", "metadata": {"resourceVersion": version.to_string()}, "items": objects,
        });
        Ok(ok_json(&format, &list))
    });
    answer.unwrap_or_else(|status| status.respond(&format))
}

/// `GET /api/v1/namespaces/{namespace}/secrets/{secret}`.
pub(super) async fn read(State(sim): SimState, Path(key): Path<(String, String)>, headers: HeaderMap) -> Response {
    let format = ResponseFormat::from_headers(&headers);
    match sim.secrets.get(&key) {
        Some(object) => ok_json(&format, &object),
        None => Status::not_found("secrets", &key.1).respond(&format),
    }
}

/// `POST /api/v1/namespaces/{namespace}/secrets`.
pub(super) async fn create(
    State(sim): SimState,
    Path(namespace): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let format = ResponseFormat::from_headers(&headers);
    let object = match secret(&body) {
        Ok(object) => object,
        Err(status) => return status.respond(&format),
    };
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    match sim.secrets.create((namespace, name.clone()), object) {
        Ok(object) => json_response(StatusCode::CREATED, format.print(&object)),
        Err(error) => Status::from_write_error(&error, "secrets", &name).respond(&format),
    }
}

/// `PUT /api/v1/namespaces/{namespace}/secrets/{secret}`.
pub(super) async fn replace(
    State(sim): SimState,
    Path(key): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let format = ResponseFormat::from_headers(&headers);
    let name = key.1.clone();
    let replaced = secret(&body).and_then(|object| {
        let replaced = sim.secrets.replace(key, object);
        replaced.map_err(|error| Status::from_write_error(&error, "secrets", &name))
    });
    match replaced {
        Ok(object) => ok_json(&format, &object),
        Err(status) => status.respond(&format),
    }
}

/// `DELETE /api/v1/namespaces/{namespace}/secrets/{secret}`.
pub(super) async fn delete(
    State(sim): SimState,
    Path(key): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let format = ResponseFormat::from_headers(&headers);
    let options: Value = serde_json::from_slice(&body).unwrap_or_default();
    match sim
        .secrets
        .remove(&key, options["preconditions"]["resourceVersion"].as_str())
    {
        Ok(object) => {
            let details = json!({"name": key.1, "kind": "secrets", "uid": object["metadata"]["uid"]});
            let done =
                json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details});
            ok_json(&format, &done)
        }
        Err(error) => Status::from_write_error(&error, "secrets", &key.1).respond(&format),
    }
}

/// Parses a Secret with a name.
///
/// *Errors*: 400 for invalid JSON, 422 without a name.
fn secret(body: &[u8]) -> Result<Value, Status> {
    let mut object: Value = serde_json::from_slice(body).map_err(|_| Status::unrecognized())?;
    let named = object["metadata"]["name"].as_str().is_some_and(|name| !name.is_empty());
    if !named {
        let causes = vec![Cause::required("metadata.name", "name or generateName is required")];
        return Err(Status::invalid("Secret", "", causes));
    }
    object["kind"] = "Secret".into();
    object["apiVersion"] = "v1".into();
    if object["type"].is_null() {
        object["type"] = "Opaque".into();
    }
    Ok(object)
}

/// The Secrets as a source of watch events.
struct SecretSource;

impl WatchSource for SecretSource {
    type Object = Value;

    fn versions(&self, sim: &Simulation) -> Receiver<u64> {
        sim.secrets.versions()
    }

    fn list(&self, sim: &Simulation) -> (u64, Vec<Arc<Value>>) {
        sim.secrets.list()
    }

    fn changes(&self, sim: &Simulation, after: u64, limit: usize) -> Result<Vec<Change<Value>>, VersionTooOld> {
        sim.secrets.changes(after, limit)
    }

    fn matches(&self, selector: &Selector, object: &Value) -> bool {
        selector.matches_object(object)
    }

    fn json(&self, object: &Value) -> Value {
        object.clone()
    }

    fn bookmark(&self, metadata: Value) -> Value {
        json!({"kind": "Secret", "apiVersion": "v1", "metadata": metadata})
    }
}
