//! Watches: one compact JSON event per line, from a resource version on.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::StatusCode;
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use futures::stream;
use serde_json::{Value, json};
use tokio::sync::watch::Receiver;
use tokio::time::{Instant, sleep_until};

use super::list_page::parse_version;
use super::query::Query;
use super::selector::Selector;
use super::status::{Cause, Status, respond_with};
use super::{pod_json, table};
use crate::simulation::{Interrupt, Sim};
use crate::store::history::{Change, TooOld};
use crate::store::pod::Pod;

/// One open watch.
pub(crate) struct Watch {
    sim: Arc<Sim>,
    selector: Selector,
    table: bool,
    bookmarks: bool,
    /// Everything up to this version has been sent, or was known to the client.
    version: u64,
    versions: Receiver<u64>,
    interrupt: Receiver<Interrupt>,
    muted: Receiver<bool>,
    ends: Instant,
    next_bookmark: Instant,
    /// Lines to send before anything else.
    pending: VecDeque<String>,
    ended: bool,
}

/// A body that breaks off without its last chunk.
#[derive(Debug, thiserror::Error)]
#[error("the stream was broken")]
pub(crate) struct Broken;

impl Watch {
    /// Opens a watch as the query asks.
    ///
    /// *Errors*: a version that is no number (500, as the API server has it); `sendInitialEvents` without its match rule.
    pub(crate) fn open(sim: &Arc<Sim>, query: &Query, selector: Selector, table: bool) -> Result<Self, Status> {
        let asked = query
            .filled("resourceVersion")
            .map_or(Ok(0), parse_version)
            .map_err(Status::internal)?;
        let initial = query.flag("sendInitialEvents");
        if initial && query.filled("resourceVersionMatch") != Some("NotOlderThan") {
            let rule = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
            let causes = vec![Cause::forbidden("resourceVersionMatch", rule)];
            return Err(Status::invalid("ListOptions", "", causes));
        }
        let timeout = query
            .number("timeoutSeconds")?
            .and_then(|seconds| u64::try_from(seconds).ok());
        let timeout = timeout
            .filter(|seconds| *seconds > 0)
            .map_or(DEFAULT_TIMEOUT, Duration::from_secs);
        let now = Instant::now();
        let mut watch = Self {
            versions: sim.store.versions(),
            interrupt: sim.interrupts.watches.subscribe(),
            muted: sim.condition.watches_muted.subscribe(),
            sim: Arc::clone(sim),
            selector,
            table,
            bookmarks: query.flag("allowWatchBookmarks"),
            version: asked,
            ends: now + timeout,
            next_bookmark: now + BOOKMARK_EVERY,
            pending: VecDeque::new(),
            ended: false,
        };
        if initial || asked == 0 {
            watch.begin_with_list(initial);
        }
        Ok(watch)
    }

    /// Everything that is there comes first, as ADDED.
    fn begin_with_list(&mut self, mark_end: bool) {
        let listing = self.sim.store.list();
        self.version = self.version.max(listing.version);
        let pods = listing.pods.iter().filter(|pod| self.selector.matches(pod));
        self.pending = pods.map(|pod| line("ADDED", &self.object(pod))).collect();
        if mark_end && self.bookmarks {
            self.pending.push_back(self.bookmark(true));
        }
    }

    /// Returns the next piece of the body.
    async fn next(&mut self) -> Option<Result<Bytes, Broken>> {
        loop {
            let muted = *self.muted.borrow_and_update();
            if self.pending.is_empty() && !self.ended && !muted {
                self.read_changes();
            }
            if !muted && let Some(data) = self.take_pending() {
                return Some(Ok(data));
            }
            if self.ended {
                return None;
            }
            let stop = self.sim.stop.clone();
            tokio::select! {
                changed = self.versions.changed() => self.ended |= changed.is_err(),
                _ = self.interrupt.changed() => {
                    if *self.interrupt.borrow() == Interrupt::Break {
                        self.ended = true;
                        return Some(Err(Broken));
                    }
                    self.ended = true;
                }
                changed = self.muted.changed() => self.ended |= changed.is_err(),
                () = sleep_until(self.ends) => self.ended = true,
                () = sleep_until(self.next_bookmark), if self.bookmarks => {
                    self.next_bookmark = Instant::now() + BOOKMARK_EVERY;
                    self.pending.push_back(self.bookmark(false));
                }
                () = stop.cancelled() => self.ended = true,
            }
        }
    }

    /// Takes what happened since; a watch that has fallen out of the history gets the error 410 and ends.
    fn read_changes(&mut self) {
        match self.sim.store.changes(self.version, CHANGES_AT_ONCE) {
            Ok(events) => {
                for event in events {
                    self.version = event.version;
                    if let Some(line) = self.print(&event) {
                        self.pending.push_back(line);
                    }
                }
            }
            Err(too_old) => {
                self.pending.push_back(expired(self.version, too_old));
                self.ended = true;
            }
        }
    }

    fn print(&self, change: &Change<Pod>) -> Option<String> {
        let kind = change.kind(|pod| self.selector.matches(pod))?;
        Some(line(kind, &self.object(&change.object)))
    }

    fn object(&self, pod: &Pod) -> Value {
        if self.table {
            table::of_pods(
                std::iter::once(pod),
                json!({"resourceVersion": pod.version.to_string()}),
            )
        } else {
            pod_json::pod(pod, true)
        }
    }

    fn bookmark(&self, initial_end: bool) -> String {
        let mut metadata = json!({"resourceVersion": self.version.to_string()});
        if initial_end {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let object = if self.table {
            table::of_pods(std::iter::empty(), metadata)
        } else {
            json!({"kind": "Pod", "apiVersion": "v1", "metadata": metadata, "spec": {"containers": null}, "status": {}})
        };
        line("BOOKMARK", &object)
    }

    fn take_pending(&mut self) -> Option<Bytes> {
        let mut data = BytesMut::new();
        while data.len() < PIECE_BYTES
            && let Some(line) = self.pending.pop_front()
        {
            data.extend_from_slice(line.as_bytes());
        }
        (!data.is_empty()).then(|| data.freeze())
    }
}

/// Answers with an open watch.
pub(crate) fn respond(watch: Watch) -> Response {
    let body = stream::unfold(watch, |mut watch| async move {
        watch.next().await.map(|piece| (piece, watch))
    });
    respond_with(StatusCode::OK, "application/json", Body::from_stream(body))
}

/// Says that a watch has fallen out of the history.
pub(super) fn expired(version: u64, too_old: TooOld) -> String {
    let message = format!("too old resource version: {version} ({})", too_old.oldest);
    let status = Status::expired(message, None).compact();
    format!("{{\"type\":\"ERROR\",\"object\":{status}}}\n")
}

pub(super) fn line(kind: &str, object: &Value) -> String {
    format!("{{\"type\":\"{kind}\",\"object\":{object}}}\n")
}

/// Without `timeoutSeconds` an API server picks 30 to 60 minutes.
pub(super) const DEFAULT_TIMEOUT: Duration = Duration::from_mins(45);
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// Changes taken under one lock.
pub(super) const CHANGES_AT_ONCE: usize = 100;
/// About what one chunk holds.
const PIECE_BYTES: usize = 64 << 10;
