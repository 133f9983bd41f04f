//! Pods: list, watch, get and delete.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, RawQuery, State};
use axum::http::HeaderMap;
use axum::response::Response;
use serde_json::{Value, json};
use tokio::sync::watch::Receiver;

use super::list_page::{Page, list_page};
use super::query::Query;
use super::response::{ResponseFormat, SimState, ok_json};
use super::selector::Selector;
use super::status::Status;
use super::watch::{Watch, WatchSource};
use super::{pod_json, table};
use crate::node::kubelet;
use crate::simulation::Simulation;
use crate::store::history::{Change, VersionTooOld};
use crate::store::pod::Pod;

/// `GET /api/v1/pods`.
pub(super) async fn list_all(State(sim): SimState, RawQuery(query): RawQuery, headers: HeaderMap) -> Response {
    list_or_watch(&sim, None, query.as_deref(), &headers)
}

/// `GET /api/v1/namespaces/{namespace}/pods`.
pub(super) async fn list_namespace(
    State(sim): SimState,
    Path(namespace): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    list_or_watch(&sim, Some(namespace), query.as_deref(), &headers)
}

/// `GET /api/v1/namespaces/{namespace}/pods/{pod}`.
pub(super) async fn read(State(sim): SimState, Path(key): Path<(String, String)>, headers: HeaderMap) -> Response {
    let format = ResponseFormat::from_headers(&headers);
    match sim.pods.get(&key) {
        Some(pod) => ok_json(&format, &pod_object(format.table, &pod)),
        None => Status::not_found("pods", &key.1).respond(&format),
    }
}

/// `DELETE /api/v1/namespaces/{namespace}/pods/{pod}`.
pub(super) async fn delete(
    State(sim): SimState,
    Path(key): Path<(String, String)>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let format = ResponseFormat::from_headers(&headers);
    let grace = match Query::parse(query.as_deref()).number("gracePeriodSeconds") {
        Ok(grace) => grace,
        Err(status) => return status.respond(&format),
    };
    let options: Value = serde_json::from_slice(&body).unwrap_or_default();
    let grace = options["gracePeriodSeconds"].as_i64().or(grace);
    match kubelet::delete_pod(&sim, &key, grace) {
        Some(pod) => ok_json(&format, &pod_object(format.table, &pod)),
        None => Status::not_found("pods", &key.1).respond(&format),
    }
}

fn list_or_watch(
    sim: &Arc<Simulation>,
    namespace: Option<String>,
    query: Option<&str>,
    headers: &HeaderMap,
) -> Response {
    let format = ResponseFormat::from_headers(headers);
    let query = Query::parse(query);
    let answer = Selector::parse(namespace, &query).and_then(|selector| {
        if query.flag("watch") {
            return Watch::open(sim, &query, selector, PodSource { table: format.table }).map(Watch::respond);
        }
        let page = list_page(&sim.pods, &query, &selector)?;
        Ok(ok_json(&format, &page_object(&format, &page)))
    });
    answer.unwrap_or_else(|status| status.respond(&format))
}

fn pod_object(as_table: bool, pod: &Pod) -> Value {
    if as_table {
        table::pods_table(
            std::iter::once(pod),
            json!({"resourceVersion": pod.version.to_string()}),
        )
    } else {
        pod_json::pod(pod, true)
    }
}

fn page_object(format: &ResponseFormat, page: &Page) -> Value {
    let mut metadata = json!({"resourceVersion": page.version.to_string()});
    if let Some((token, remaining)) = &page.more {
        metadata["continue"] = token.clone().into();
        metadata["remainingItemCount"] = (*remaining).into();
    }
    let pods = page.pods.iter().map(AsRef::as_ref);
    if format.table {
        return table::pods_table(pods, metadata);
    }
    let items: Vec<_> = pods.map(|pod| pod_json::pod(pod, false)).collect();
    json!({"kind": "PodList", "apiVersion": "v1", "metadata": metadata, "items": items})
}

/// The pods as a source of watch events.
struct PodSource {
    table: bool,
}

impl WatchSource for PodSource {
    type Object = Pod;

    fn versions(&self, sim: &Simulation) -> Receiver<u64> {
        sim.pods.versions()
    }

    fn list(&self, sim: &Simulation) -> (u64, Vec<Arc<Pod>>) {
        let listing = sim.pods.list();
        (listing.version, listing.pods)
    }

    fn changes(&self, sim: &Simulation, after: u64, limit: usize) -> Result<Vec<Change<Pod>>, VersionTooOld> {
        sim.pods.changes(after, limit)
    }

    fn matches(&self, selector: &Selector, pod: &Pod) -> bool {
        selector.matches(pod)
    }

    fn json(&self, pod: &Pod) -> Value {
        pod_object(self.table, pod)
    }

    fn bookmark(&self, metadata: Value) -> Value {
        if self.table {
            table::pods_table(std::iter::empty(), metadata)
        } else {
            json!({"kind": "Pod", "apiVersion": "v1", "metadata": metadata, "spec": {"containers": null}, "status": {}})
        }
    }
}
