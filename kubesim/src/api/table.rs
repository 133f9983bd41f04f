//! `Table` objects: the columns that kubectl prints.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::pod_json;
use crate::store::pod::{Container, Pod, State};
use crate::store::pods::Namespace;

/// Returns pods as a table.
pub(crate) fn pods_table<'a>(pods: impl Iterator<Item = &'a Pod>, metadata: Value) -> Value {
    let rows: Vec<_> = pods.map(pod_row).collect();
    table(POD_COLUMNS, rows, metadata)
}

/// Returns namespaces as a table.
pub(crate) fn namespaces_table(namespaces: &[Namespace], version: u64) -> Value {
    let rows = namespaces.iter().map(|namespace| {
        json!({
            "cells": [namespace.name, "Active", age(namespace.created)],
            "object": partial_metadata(json!({
                "name": namespace.name, "uid": namespace.uid, "resourceVersion": namespace.version.to_string(),
                "creationTimestamp": crate::time::rfc3339_seconds(namespace.created),
            })),
        })
    });
    table(
        NAMESPACE_COLUMNS,
        rows.collect(),
        json!({"resourceVersion": version.to_string()}),
    )
}

fn table(columns: &[Column], rows: Vec<Value>, metadata: Value) -> Value {
    let columns = columns.iter().map(|&(name, kind, priority)| {
        let format = if name == "Name" { "name" } else { "" };
        json!({"name": name, "type": kind, "format": format, "description": "", "priority": priority})
    });
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
        "columnDefinitions": columns.collect::<Vec<_>>(), "rows": rows,
    })
}

fn pod_row(pod: &Pod) -> Value {
    let running = pod.long_running().filter(|container| container.is_running()).count();
    let none = "<none>";
    let node = if pod.node.is_empty() { none } else { &pod.node };
    json!({
        "cells": [
            pod.name,
            format!("{running}/{}", pod.long_running().count()),
            status_column(pod),
            restarts_column(pod),
            age(pod.created),
            pod.ip.as_deref().unwrap_or(none),
            node,
            none,
            none,
        ],
        "object": partial_metadata(pod_json::metadata(pod)),
    })
}

fn partial_metadata(metadata: Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata})
}

/// The STATUS column: the phase, or the reason that overrides it.
fn status_column(pod: &Pod) -> String {
    if pod.deletion.is_some() && !pod.phase.is_final() {
        return "Terminating".to_owned();
    }
    let mut reason = pod.phase.as_str().to_owned();
    if pod.observed_generation.is_none() {
        return reason;
    }
    if !pod.initialized() && !pod.phase.is_final() {
        let done = pod.init().filter(|container| container.succeeded()).count();
        return format!("Init:{done}/{}", pod.init().count());
    }
    for container in pod.main().rev() {
        match &container.state {
            State::Waiting { reason: why, .. } => reason.clone_from(why),
            State::Terminated(end) => reason = if end.exit_code == 0 { "Completed" } else { "Error" }.to_owned(),
            State::Running { .. } => {}
        }
    }
    if reason == "Completed" && pod.main().any(Container::is_running) {
        return "Running".to_owned();
    }
    reason
}

/// The RESTARTS column: `2 (13s ago)`.
fn restarts_column(pod: &Pod) -> String {
    let count: u32 = pod.long_running().map(|container| container.restarts).sum();
    let ends = pod.long_running().filter_map(|container| container.last.as_ref());
    match ends.map(|end| end.finished).max() {
        Some(last) if count > 0 => format!("{count} ({} ago)", age(last)),
        _ => count.to_string(),
    }
}

/// Formats the time since a timestamp as kubectl does: `13s`, `4m5s`, `3h2m`, `5d`.
fn age(since: Timestamp) -> String {
    let seconds = crate::time::now().as_second().saturating_sub(since.as_second()).max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let pair = |large: i64, unit: char, small: i64, below: char| match small {
        0 => format!("{large}{unit}"),
        _ => format!("{large}{unit}{small}{below}"),
    };
    match seconds {
        0..120 => format!("{seconds}s"),
        120..600 => pair(minutes, 'm', seconds % 60, 's'),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => pair(hours, 'h', minutes % 60, 'm'),
        28_800..172_800 => format!("{hours}h"),
        _ => format!("{days}d"),
    }
}

/// Name, type, and priority: 0, or 1 for columns of `-o wide`.
type Column = (&'static str, &'static str, u8);

const POD_COLUMNS: &[Column] = &[
    ("Name", "string", 0),
    ("Ready", "string", 0),
    ("Status", "string", 0),
    ("Restarts", "string", 0),
    ("Age", "string", 0),
    ("IP", "string", 1),
    ("Node", "string", 1),
    ("Nominated Node", "string", 1),
    ("Readiness Gates", "string", 1),
];
const NAMESPACE_COLUMNS: &[Column] = &[("Name", "string", 0), ("Status", "string", 0), ("Age", "string", 0)];
