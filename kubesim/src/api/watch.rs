//! Watches: one JSON event per line, from a resource version on.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::StatusCode;
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use futures::stream;
use serde_json::{Value, json};
use system::clock::{Instant, steady};
use tokio::sync::watch::Receiver;
use tokio::time::sleep_until;

use super::list_page::parse_version;
use super::query::Query;
use super::response::{StreamBroken, response};
use super::selector::Selector;
use super::status::{Cause, Status};
use crate::simulation::{Interrupt, Simulation};
use crate::store::history::{Change, VersionTooOld};

/// Objects that can be watched.
pub(super) trait WatchSource: Send + 'static {
    type Object;

    /// Returns a receiver of the newest version.
    fn versions(&self, sim: &Simulation) -> Receiver<u64>;

    /// Returns the newest version and the existing objects.
    fn list(&self, sim: &Simulation) -> (u64, Vec<Arc<Self::Object>>);

    /// Returns up to `limit` changes after a version, oldest first.
    fn changes(&self, sim: &Simulation, after: u64, limit: usize) -> Result<Vec<Change<Self::Object>>, VersionTooOld>;

    /// Returns whether a selector matches an object.
    fn matches(&self, selector: &Selector, object: &Self::Object) -> bool;

    /// Returns an object as JSON.
    fn json(&self, object: &Self::Object) -> Value;

    /// Returns the object of a bookmark event.
    fn bookmark(&self, metadata: Value) -> Value;
}

/// One open watch.
pub(super) struct Watch<S> {
    sim: Arc<Simulation>,
    source: S,
    selector: Selector,
    bookmarks: bool,
    /// The client has everything up to this version.
    version: u64,
    versions: Receiver<u64>,
    interrupt: Receiver<Interrupt>,
    muted: Receiver<bool>,
    deadline: Instant,
    next_bookmark: Instant,
    /// Lines to send next.
    pending: VecDeque<String>,
    ended: bool,
}

impl<S: WatchSource> Watch<S> {
    /// Opens a watch with the parameters of a query.
    ///
    /// *Errors*: 500 for an invalid version, as the API server does; 422 for `sendInitialEvents`
    /// without its match rule.
    pub(super) fn open(sim: &Arc<Simulation>, query: &Query, selector: Selector, source: S) -> Result<Self, Status> {
        let version = query
            .non_empty("resourceVersion")
            .map_or(Ok(0), parse_version)
            .map_err(Status::internal)?;
        let initial_events = query.flag("sendInitialEvents");
        if initial_events && query.non_empty("resourceVersionMatch") != Some("NotOlderThan") {
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
        let now = steady();
        let mut watch = Self {
            versions: source.versions(sim),
            interrupt: sim.interrupts.watches.subscribe(),
            muted: sim.state.watches_muted.subscribe(),
            sim: Arc::clone(sim),
            source,
            selector,
            bookmarks: query.flag("allowWatchBookmarks"),
            version,
            deadline: now + timeout,
            next_bookmark: now + BOOKMARK_INTERVAL,
            pending: VecDeque::new(),
            ended: false,
        };
        if initial_events || version == 0 {
            watch.queue_existing(initial_events);
        }
        Ok(watch)
    }

    /// Responds with an open watch.
    pub(super) fn respond(self) -> Response {
        let body = stream::unfold(self, |mut watch| async move {
            watch.next().await.map(|piece| (piece, watch))
        });
        response(StatusCode::OK, "application/json", Body::from_stream(body))
    }

    /// Queues the existing objects as `ADDED` events.
    fn queue_existing(&mut self, mark_end: bool) {
        let (version, objects) = self.source.list(&self.sim);
        self.version = self.version.max(version);
        let matching = objects
            .iter()
            .filter(|object| self.source.matches(&self.selector, object));
        self.pending = matching
            .map(|object| event_line("ADDED", &self.source.json(object)))
            .collect();
        if mark_end && self.bookmarks {
            self.pending.push_back(self.bookmark(true));
        }
    }

    /// Returns the next piece of the body.
    async fn next(&mut self) -> Option<Result<Bytes, StreamBroken>> {
        loop {
            let muted = *self.muted.borrow_and_update();
            if self.pending.is_empty() && !self.ended && !muted {
                self.queue_changes();
            }
            if !muted && let Some(data) = self.next_piece() {
                return Some(Ok(data));
            }
            if self.ended {
                return None;
            }
            let stop = self.sim.stop.clone();
            tokio::select! {
                biased;
                changed = self.versions.changed() => self.ended |= changed.is_err(),
                _ = self.interrupt.changed() => {
                    self.ended = true;
                    if *self.interrupt.borrow() == Interrupt::Break {
                        return Some(Err(StreamBroken));
                    }
                }
                changed = self.muted.changed() => self.ended |= changed.is_err(),
                () = sleep_until(self.deadline) => self.ended = true,
                () = sleep_until(self.next_bookmark), if self.bookmarks => {
                    self.next_bookmark = steady() + BOOKMARK_INTERVAL;
                    self.pending.push_back(self.bookmark(false));
                }
                () = stop.cancelled() => self.ended = true,
            }
        }
    }

    /// Queues the changes since the last call. A watch that fell out of the history gets the error
    /// 410 and ends.
    fn queue_changes(&mut self) {
        match self.source.changes(&self.sim, self.version, CHANGES_PER_READ) {
            Ok(changes) => {
                for change in changes {
                    self.version = change.version;
                    let matches = |object: &S::Object| self.source.matches(&self.selector, object);
                    if let Some(event) = change.event_type(matches) {
                        self.pending
                            .push_back(event_line(event, &self.source.json(&change.object)));
                    }
                }
            }
            Err(too_old) => {
                self.pending.push_back(expired_line(self.version, too_old));
                self.ended = true;
            }
        }
    }

    fn bookmark(&self, is_initial_end: bool) -> String {
        let mut metadata = json!({"resourceVersion": self.version.to_string()});
        if is_initial_end {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        event_line("BOOKMARK", &self.source.bookmark(metadata))
    }

    fn next_piece(&mut self) -> Option<Bytes> {
        let mut data = BytesMut::new();
        while data.len() < PIECE_BYTES
            && let Some(line) = self.pending.pop_front()
        {
            data.extend_from_slice(line.as_bytes());
        }
        (!data.is_empty()).then(|| data.freeze())
    }
}

/// Returns the event of a watch whose version is too old.
fn expired_line(version: u64, too_old: VersionTooOld) -> String {
    let message = format!("too old resource version: {version} ({})", too_old.oldest);
    let status = Status::expired(message, None).compact();
    format!("{{\"type\":\"ERROR\",\"object\":{status}}}\n")
}

fn event_line(event: &str, object: &Value) -> String {
    format!("{{\"type\":\"{event}\",\"object\":{object}}}\n")
}

/// Default timeout; an API server picks 30 to 60 minutes.
const DEFAULT_TIMEOUT: Duration = Duration::from_mins(45);
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(60);
/// Changes read under one lock.
const CHANGES_PER_READ: usize = 100;
/// Approximate size of one chunk.
const PIECE_BYTES: usize = 64 << 10;
