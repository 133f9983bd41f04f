//! Secrets: list, watch, get, create, replace, delete. A pod's rights do not matter here: there is no authentication.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use futures::stream;
use serde_json::{Value, json};
use tokio::sync::watch::Receiver;
use tokio::time::{Instant, sleep_until};

use super::list_page::parse_version;
use super::query::Query;
use super::selector::Selector;
use super::status::{self, Status};
use super::watch::{Broken, CHANGES_AT_ONCE, DEFAULT_TIMEOUT, expired, line};
use super::{Client, Shared};
use crate::simulation::{Interrupt, Sim};

/// `GET /api/v1/namespaces/{namespace}/secrets`, also with `watch`.
pub(super) async fn list(
    State(sim): Shared,
    Path(namespace): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let client = Client::of(&headers);
    let query = Query::parse(query.as_deref());
    let answer = Selector::parse(Some(namespace), &query).and_then(|selector| {
        if query.flag("watch") {
            return Watch::open(&sim, &query, selector).map(respond);
        }
        let (version, objects) = sim.secrets.list();
        let meant = objects.iter().filter(|object| selector.matches_object(object));
        let objects: Vec<&Value> = meant.map(AsRef::as_ref).collect();
        let list = json!({
            "kind": "SecretList", "apiVersion": "v1", "metadata": {"resourceVersion": version.to_string()}, "items": objects,
        });
        Ok(super::json(&client, &list))
    });
    answer.unwrap_or_else(|status| status.respond(&client))
}

/// `GET /api/v1/namespaces/{namespace}/secrets/{secret}`.
pub(super) async fn read(State(sim): Shared, Path(key): Path<(String, String)>, headers: HeaderMap) -> Response {
    let client = Client::of(&headers);
    match sim.secrets.get(&key) {
        Some(object) => super::json(&client, &object),
        None => Status::not_found("secrets", &key.1).respond(&client),
    }
}

/// `POST /api/v1/namespaces/{namespace}/secrets`.
pub(super) async fn create(
    State(sim): Shared,
    Path(namespace): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let client = Client::of(&headers);
    let object = match secret(&body) {
        Ok(object) => object,
        Err(status) => return status.respond(&client),
    };
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    match sim.secrets.create((namespace, name.clone()), object) {
        Ok(object) => status::answer(StatusCode::CREATED, client.print(&object)),
        Err(refused) => Status::refused(&refused, "secrets", &name).respond(&client),
    }
}

/// `PUT /api/v1/namespaces/{namespace}/secrets/{secret}`.
pub(super) async fn replace(
    State(sim): Shared,
    Path(key): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let client = Client::of(&headers);
    let name = key.1.clone();
    let replaced = secret(&body).and_then(|object| {
        let replaced = sim.secrets.replace(key, object);
        replaced.map_err(|refused| Status::refused(&refused, "secrets", &name))
    });
    match replaced {
        Ok(object) => super::json(&client, &object),
        Err(status) => status.respond(&client),
    }
}

/// `DELETE /api/v1/namespaces/{namespace}/secrets/{secret}`.
pub(super) async fn delete(
    State(sim): Shared,
    Path(key): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let client = Client::of(&headers);
    let options: Value = serde_json::from_slice(&body).unwrap_or_default();
    match sim
        .secrets
        .remove(&key, options["preconditions"]["resourceVersion"].as_str())
    {
        Ok(object) => {
            let details = json!({"name": key.1, "kind": "secrets", "uid": object["metadata"]["uid"]});
            let done =
                json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details});
            super::json(&client, &done)
        }
        Err(refused) => Status::refused(&refused, "secrets", &key.1).respond(&client),
    }
}

/// A Secret with a name, or 400 or 422.
fn secret(body: &[u8]) -> Result<Value, Status> {
    let mut object: Value = serde_json::from_slice(body).map_err(|_| Status::unrecognized())?;
    let named = object["metadata"]["name"].as_str().is_some_and(|name| !name.is_empty());
    if !named {
        let causes = vec![status::Cause::required(
            "metadata.name",
            "name or generateName is required",
        )];
        return Err(Status::invalid("Secret", "", causes));
    }
    object["kind"] = "Secret".into();
    object["apiVersion"] = "v1".into();
    if object["type"].is_null() {
        object["type"] = "Opaque".into();
    }
    Ok(object)
}

/// One open watch.
struct Watch {
    sim: Arc<Sim>,
    selector: Selector,
    /// Everything up to this version has been sent, or was known to the client.
    version: u64,
    versions: Receiver<u64>,
    interrupt: Receiver<Interrupt>,
    ends: Instant,
    pending: VecDeque<String>,
    ended: bool,
}

impl Watch {
    fn open(sim: &Arc<Sim>, query: &Query, selector: Selector) -> Result<Self, Status> {
        let asked = query
            .filled("resourceVersion")
            .map_or(Ok(0), parse_version)
            .map_err(Status::internal)?;
        let timeout = query.number("timeoutSeconds")?;
        let timeout = timeout
            .and_then(|seconds| u64::try_from(seconds).ok())
            .filter(|seconds| *seconds > 0);
        let mut watch = Self {
            versions: sim.secrets.versions(),
            interrupt: sim.interrupts.watches.subscribe(),
            sim: Arc::clone(sim),
            selector,
            version: asked,
            ends: Instant::now() + timeout.map_or(DEFAULT_TIMEOUT, Duration::from_secs),
            pending: VecDeque::new(),
            ended: false,
        };
        if asked == 0 {
            let (version, objects) = watch.sim.secrets.list();
            let meant = objects.iter().filter(|object| watch.selector.matches_object(object));
            watch.pending = meant.map(|object| line("ADDED", object)).collect();
            watch.version = version;
        }
        Ok(watch)
    }

    async fn next(&mut self) -> Option<Result<Bytes, Broken>> {
        loop {
            if self.pending.is_empty() && !self.ended {
                self.read_changes();
            }
            if let Some(line) = self.pending.pop_front() {
                return Some(Ok(line.into()));
            }
            if self.ended {
                return None;
            }
            let stop = self.sim.stop.clone();
            tokio::select! {
                changed = self.versions.changed() => self.ended |= changed.is_err(),
                _ = self.interrupt.changed() => {
                    self.ended = true;
                    if *self.interrupt.borrow() == Interrupt::Break {
                        return Some(Err(Broken));
                    }
                }
                () = sleep_until(self.ends) => self.ended = true,
                () = stop.cancelled() => self.ended = true,
            }
        }
    }

    fn read_changes(&mut self) {
        match self.sim.secrets.changes(self.version, CHANGES_AT_ONCE) {
            Ok(changes) => {
                for change in changes {
                    self.version = change.version;
                    let kind = change.kind(|object| self.selector.matches_object(object));
                    self.pending.extend(kind.map(|kind| line(kind, &change.object)));
                }
            }
            Err(too_old) => {
                self.pending.push_back(expired(self.version, too_old));
                self.ended = true;
            }
        }
    }
}

fn respond(watch: Watch) -> Response {
    let body = stream::unfold(watch, |mut watch| async move {
        watch.next().await.map(|piece| (piece, watch))
    });
    status::respond_with(StatusCode::OK, "application/json", Body::from_stream(body))
}
