//! A client that reads a tail over HTTP and resumes as the documentation says.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::sync::Notify;

use crate::{
    check::{
        BusLimits,
        drain::process_of_gap,
        received::{Fields, Notice, Received, TailLog},
    },
    machine::process::Process,
    plan::TailFormat,
    trace,
};

/// Pause before a client connects again.
const RECONNECT: Duration = Duration::from_millis(500);

/// Limit for the head of a response.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(90);

/// A tail, shared by its task and the world.
pub struct Tail {
    /// The name in traces.
    pub name: String,
    /// The app.
    pub app: String,
    num_lines: u64,
    format: TailFormat,
    follow: bool,
    server: SocketAddr,
    logs: Mutex<Vec<TailLog>>,
    is_broken: Notify,
    /// Whether an answer without `follow` has come to its end.
    is_answered: AtomicBool,
    /// Milliseconds of virtual time until which the client reads nothing.
    stalled_until: AtomicU64,
    bus: BusLimits,
}

/// How a response ended.
enum Ended {
    /// The server says that the answer is complete, or that the client should come again.
    Complete,
    /// It broke.
    Broken,
}

#[derive(Deserialize)]
struct JsonLine {
    stream: Option<String>,
    seq: Option<u64>,
    #[serde(default)]
    text: String,
    time: Option<Timestamp>,
    #[serde(default)]
    process: String,
    fd: Option<String>,
    #[serde(default)]
    late: bool,
    notice: Option<JsonNotice>,
    #[serde(default)]
    closing: bool,
    cursor: Option<String>,
}

#[derive(Deserialize)]
struct JsonNotice {
    code: String,
    reason: String,
    stream: Option<String>,
    first: Option<u64>,
    count: Option<u64>,
    from: Option<Timestamp>,
    to: Option<Timestamp>,
}

impl Tail {
    /// Creates a tail.
    pub fn new(
        name: String,
        app: String,
        num_lines: u64,
        format: TailFormat,
        follow: bool,
        server: SocketAddr,
    ) -> Self {
        Self {
            name,
            app,
            num_lines,
            format,
            follow,
            server,
            logs: Mutex::default(),
            is_broken: Notify::new(),
            is_answered: AtomicBool::new(false),
            stalled_until: AtomicU64::new(0),
            bus: BusLimits::default(),
        }
    }

    /// Sets what the bus may do to lines.
    pub fn with_bus(self, bus: BusLimits) -> Self {
        Self { bus, ..self }
    }

    /// Breaks the connection.
    pub fn break_off(&self) {
        self.is_broken.notify_one();
    }

    /// Reads nothing for a time.
    pub fn stall(&self, time: Duration) {
        let until = trace::elapsed() + time;
        let millis = u64::try_from(until.as_millis()).unwrap_or(u64::MAX);
        self.stalled_until.store(millis, Ordering::Relaxed);
    }

    /// Reads again.
    pub fn resume(&self) {
        self.stalled_until.store(0, Ordering::Relaxed);
    }

    /// Returns what it received: one log for each time that it had to begin anew. The last one
    /// follows to the end.
    pub fn logs(&self) -> Vec<TailLog> {
        self.logs.lock().clone()
    }

    /// Returns whether an answer without `follow` is complete.
    pub fn is_complete(&self) -> bool {
        self.is_answered.load(Ordering::Relaxed)
    }

    /// Reads until the answer is complete; with `follow` until the end of the simulation.
    pub async fn run(self: Arc<Self>, process: Arc<Process>) {
        let mut cursor: Option<String> = None;
        // A repeated failure is one event of the trace.
        let mut last = String::new();
        loop {
            let ended = match self.read_once(&process, &mut cursor).await {
                Ok(Ended::Complete) if !self.follow => {
                    self.is_answered.store(true, Ordering::Relaxed);
                    trace::world(format!("{}: complete", self.name));
                    return;
                }
                Ok(Ended::Complete) => "closed by the server".to_owned(),
                Ok(Ended::Broken) => "connection lost".to_owned(),
                Err(error) => format!("{error:#}, retrying"),
            };
            if ended != last {
                trace::world(format!("{}: {ended}", self.name));
            }
            last = ended;
            tokio::time::sleep(RECONNECT).await;
        }
    }

    async fn read_once(&self, process: &Arc<Process>, cursor: &mut Option<String>) -> anyhow::Result<Ended> {
        let response = tokio::time::timeout(RESPONSE_TIMEOUT, self.request(process, cursor.as_deref()))
            .await
            .context("no response")??;
        let status = response.status();
        if status != StatusCode::OK {
            anyhow::bail!("status {status}");
        }
        if cursor.is_none() || !self.follow {
            self.begin_log();
        }
        if let Some(log) = self.logs.lock().last_mut() {
            log.received.push(Received::Begin);
        }
        let mut parser = Parser::new(self.format);
        let mut body = response.into_body();
        loop {
            self.wait_while_stalled().await;
            let frame = tokio::select! {
                frame = body.frame() => frame,
                () = self.is_broken.notified() => return Ok(self.broken(&parser, cursor)),
            };
            let Some(frame) = frame else {
                let ended = if parser.is_closing || !self.follow {
                    Ended::Complete
                } else {
                    self.broken(&parser, cursor)
                };
                cursor.clone_from(&parser.cursor);
                return Ok(ended);
            };
            let Ok(frame) = frame else {
                return Ok(self.broken(&parser, cursor));
            };
            let Ok(data) = frame.into_data() else { continue };
            let received = parser.push(&data)?;
            if let Some(log) = self.logs.lock().last_mut() {
                log.received.extend(received);
            }
        }
    }

    /// After a break the client has the last cursor that it received.
    fn broken(&self, parser: &Parser, cursor: &mut Option<String>) -> Ended {
        if parser.cursor.is_some() || self.format == TailFormat::Ndjson {
            cursor.clone_from(&parser.cursor);
        }
        Ended::Broken
    }

    fn begin_log(&self) {
        let mut logs = self.logs.lock();
        let number = logs.len();
        // Without `follow` only what was delivered is checked, up to its last line.
        let since = if self.follow { trace::elapsed() } else { Duration::MAX };
        logs.push(TailLog {
            name: format!("{}.{number}", self.name),
            app: self.app.clone(),
            since,
            bus: self.bus,
            ..TailLog::default()
        });
    }

    async fn wait_while_stalled(&self) {
        let elapsed = || u64::try_from(trace::elapsed().as_millis()).unwrap_or(u64::MAX);
        while self.stalled_until.load(Ordering::Relaxed) > elapsed() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn request(&self, process: &Arc<Process>, cursor: Option<&str>) -> anyhow::Result<Response<Incoming>> {
        let accept = match self.format {
            TailFormat::Ndjson => "application/x-ndjson",
            TailFormat::Events => "text/event-stream",
        };
        let (app, follow, num_lines) = (&self.app, self.follow, self.num_lines);
        let mut path = format!("/api/apps/{app}/logs?follow={follow}&num_lines={num_lines}");
        if let (Some(cursor), TailFormat::Ndjson) = (cursor, self.format) {
            path.push_str(&format!("&cursor={cursor}"));
        }
        let mut request = Request::get(path).header("host", "10.0.0.2").header("accept", accept);
        if let (Some(cursor), TailFormat::Events) = (cursor, self.format) {
            request = request.header("last-event-id", cursor);
        }
        send(process, self.server, request.body(Full::default())?).await
    }
}

/// Sends a request over a connection of its own.
///
/// # Errors
/// No response.
pub async fn send(
    process: &Arc<Process>,
    server: SocketAddr,
    request: Request<Full<Bytes>>,
) -> anyhow::Result<Response<Incoming>> {
    let stream = process.run(system::net::connect(server)).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    process.spawn(async move {
        // The end of the response shows an error.
        let _ = connection.await;
    });
    Ok(sender.send_request(request).await?)
}

/// Parses the body of a response.
struct Parser {
    format: TailFormat,
    buffer: Vec<u8>,
    cursor: Option<String>,
    /// The ID of the event that is being read, which counts once the event is complete.
    next_id: Option<String>,
    is_closing: bool,
    has_closing_event: bool,
}

impl Parser {
    fn new(format: TailFormat) -> Self {
        Self {
            format,
            buffer: Vec::new(),
            cursor: None,
            next_id: None,
            is_closing: false,
            has_closing_event: false,
        }
    }

    fn push(&mut self, data: &[u8]) -> anyhow::Result<Vec<Received>> {
        self.buffer.extend_from_slice(data);
        let mut received = Vec::new();
        while let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.buffer.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line[..end]).into_owned();
            match self.format {
                TailFormat::Ndjson => received.extend(self.object(&line)?),
                TailFormat::Events => received.extend(self.field(&line)?),
            }
        }
        Ok(received)
    }

    /// A line of an event stream.
    fn field(&mut self, line: &str) -> anyhow::Result<Option<Received>> {
        if let Some(id) = line.strip_prefix("id: ") {
            self.next_id = Some(id.to_owned());
        } else if line.is_empty() {
            if let Some(id) = self.next_id.take() {
                self.cursor = Some(id);
                return Ok(Some(Received::Cursor));
            }
        } else if line == "event: closing" {
            self.has_closing_event = true;
        } else if let Some(data) = line.strip_prefix("data: ") {
            if self.has_closing_event {
                self.is_closing = true;
                return Ok(None);
            }
            return self.object(data);
        }
        Ok(None)
    }

    fn object(&mut self, line: &str) -> anyhow::Result<Option<Received>> {
        let object: JsonLine = serde_json::from_str(line).with_context(|| format!("not an object: {line:?}"))?;
        if object.closing {
            self.is_closing = true;
            let has_cursor = object.cursor.is_some();
            self.cursor = object.cursor.or_else(|| self.cursor.take());
            return Ok(has_cursor.then_some(Received::Cursor));
        }
        if let Some(notice) = object.notice {
            return Ok(Some(Received::Notice(Notice {
                code: notice.code,
                reason: notice.reason,
                stream: notice.stream,
                process: process_of_gap(&object.text).map(str::to_owned),
                first: notice.first,
                count: notice.count,
                from: notice.from,
                to: notice.to,
                at: trace::elapsed(),
            })));
        }
        Ok(object.stream.zip(object.seq).map(|(stream, seq)| Received::Line {
            stream,
            seq,
            text: object.text,
            late: object.late,
            at: trace::elapsed(),
            fields: Fields {
                time: object.time.unwrap_or_default(),
                process: object.process,
                fd: object.fd,
            },
        }))
    }
}

/// Returns the notices of logs as `code reason`.
pub fn notices(logs: &[TailLog]) -> BTreeSet<String> {
    let received = logs.iter().flat_map(|log| &log.received);
    let notice = received.filter_map(|received| match received {
        Received::Notice(notice) => Some(format!("{} {}", notice.code, notice.reason)),
        Received::Begin | Received::Cursor | Received::Line { .. } => None,
    });
    notice.collect()
}
