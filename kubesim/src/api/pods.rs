//! Pods: list, watch, get, delete.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, RawQuery, State};
use axum::http::HeaderMap;
use axum::response::Response;
use serde_json::{Value, json};

use super::list_page::{Page, take_page};
use super::query::Query;
use super::selector::Selector;
use super::status::Status;
use super::watch::{self, Watch};
use super::{Client, Shared, pod_json, table};
use crate::node::kubelet;
use crate::simulation::Sim;
use crate::store::pod::Pod;

/// `GET /api/v1/pods`.
pub(super) async fn list_all(State(sim): Shared, RawQuery(query): RawQuery, headers: HeaderMap) -> Response {
    list_or_watch(&sim, None, query.as_deref(), &headers)
}

/// `GET /api/v1/namespaces/{namespace}/pods`.
pub(super) async fn list_namespace(
    State(sim): Shared,
    Path(namespace): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    list_or_watch(&sim, Some(namespace), query.as_deref(), &headers)
}

/// `GET /api/v1/namespaces/{namespace}/pods/{pod}`.
pub(super) async fn read(State(sim): Shared, Path(key): Path<(String, String)>, headers: HeaderMap) -> Response {
    let client = Client::of(&headers);
    match sim.store.pod(&key) {
        Some(pod) => super::json(&client, &print(&client, &pod)),
        None => Status::not_found("pods", &key.1).respond(&client),
    }
}

/// `DELETE /api/v1/namespaces/{namespace}/pods/{pod}`.
pub(super) async fn delete(
    State(sim): Shared,
    Path(key): Path<(String, String)>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let client = Client::of(&headers);
    let grace = match Query::parse(query.as_deref()).number("gracePeriodSeconds") {
        Ok(grace) => grace,
        Err(status) => return status.respond(&client),
    };
    let options: Value = serde_json::from_slice(&body).unwrap_or_default();
    let grace = options["gracePeriodSeconds"].as_i64().or(grace);
    match kubelet::delete_pod(&sim, &key, grace) {
        Some(pod) => super::json(&client, &print(&client, &pod)),
        None => Status::not_found("pods", &key.1).respond(&client),
    }
}

fn list_or_watch(sim: &Arc<Sim>, namespace: Option<String>, query: Option<&str>, headers: &HeaderMap) -> Response {
    let client = Client::of(headers);
    let query = Query::parse(query);
    let answer = Selector::parse(namespace, &query).and_then(|selector| {
        if query.flag("watch") {
            return Watch::open(sim, &query, selector, client.table).map(watch::respond);
        }
        let page = take_page(&sim.store, &query, &selector)?;
        Ok(super::json(&client, &print_page(&client, &page)))
    });
    answer.unwrap_or_else(|status| status.respond(&client))
}

fn print(client: &Client, pod: &Pod) -> Value {
    if client.table {
        table::of_pods(
            std::iter::once(pod),
            json!({"resourceVersion": pod.version.to_string()}),
        )
    } else {
        pod_json::pod(pod, true)
    }
}

fn print_page(client: &Client, page: &Page) -> Value {
    let mut metadata = json!({"resourceVersion": page.version.to_string()});
    if let Some((token, remaining)) = &page.more {
        metadata["continue"] = token.clone().into();
        metadata["remainingItemCount"] = (*remaining).into();
    }
    let pods = page.pods.iter().map(AsRef::as_ref);
    if client.table {
        return table::of_pods(pods, metadata);
    }
    let items: Vec<_> = pods.map(|pod| pod_json::pod(pod, false)).collect();
    json!({"kind": "PodList", "apiVersion": "v1", "metadata": metadata, "items": items})
}
