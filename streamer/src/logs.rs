//! `GET /api/apps/{app}/logs`: the one reading endpoint.

use std::sync::Arc;

use axum::{
    extract::{
        ConnectInfo, Path, Query, State,
        rejection::{PathRejection, QueryRejection},
        ws::{WebSocketUpgrade, rejection::WebSocketUpgradeRejection},
    },
    http::{HeaderMap, HeaderName, HeaderValue, header},
    response::{IntoResponse, Response},
};
use bus::{AppName, Timestamp};
use registry::Action;
use tokio::time::Instant;

use crate::{
    backlog,
    body::{self, takes_gzip},
    connection::Peer,
    error::{ApiError, ErrorBody},
    format::Format,
    hubs::Hubs,
    query::{LogsQuery, RawLogsQuery},
    socket,
    tail::Tail,
};

/// What a browser sends when it comes again by itself.
const LAST_EVENT_ID: &str = "last-event-id";

/// What this answer depends on, and that nobody on the way is to keep it, or to hold it back until there is more.
const HEADERS: [(HeaderName, HeaderValue); 3] = [
    (header::VARY, HeaderValue::from_static("accept, accept-encoding")),
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (
        HeaderName::from_static("x-accel-buffering"),
        HeaderValue::from_static("no"),
    ),
];

/// Reads an app's log: history first, then, unless told not to, what is printed from now on.
///
/// The format is what `Accept` names first. `text/plain`, also where it names none: a line each, `2026-11-23T07:00:00.123456+00:00 myapp[web-7d4b9c-x2x9z]: text`.
/// `application/x-ndjson`: a JSON object a line. `text/event-stream`: the same objects as events; the id is a cursor, `Last-Event-ID` goes on from there. With
/// `Upgrade: websocket`: messages `{"cursor":…,"lines":[…]}`. Chunked, whole lines, each as soon as it is there; compressed where `Accept-Encoding` names gzip. What is
/// missing is told in its place, by a line of the process `tributary`.
#[utoipa::path(
    get,
    path = "/api/apps/{app}/logs",
    tag = "logs",
    params(
        ("app" = String, Path, description = "The app's name"),
        RawLogsQuery,
        ("last-event-id" = Option<String>, Header, description = "The same as `cursor`"),
    ),
    responses(
        (status = 101, description = "A WebSocket: messages `{\"cursor\":…,\"lines\":[…]}`"),
        (status = 200, description = "The lines", content(
            (String = "text/plain"), (String = "application/x-ndjson"), (String = "text/event-stream")
        )),
        (status = 401, description = "No good key", body = ErrorBody),
        (status = 404, description = "No such app, or none that the key may read", body = ErrorBody),
        (status = 422, description = "A value that cannot be meant", body = ErrorBody),
        (status = 429, description = "As many tails as there may be; `Retry-After` says when to try again", body = ErrorBody),
        (status = 503, description = "The bus is not available, or the server stops", body = ErrorBody),
    )
)]
pub(crate) async fn logs(
    State(hubs): State<Arc<Hubs>>,
    ConnectInfo(Peer(peer)): ConnectInfo<Peer>,
    headers: HeaderMap,
    app: Result<Path<String>, PathRejection>,
    query: Result<Query<RawLogsQuery>, QueryRejection>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, ApiError> {
    // First of all: who may not read learns nothing.
    let session = query.as_ref().ok().and_then(|query| query.session());
    let (app, pass) = match session {
        Some(word) => hubs.access.enter_session(word, peer.ip(), app).await?,
        None => hubs.access.enter(&headers, peer.ip(), app, Action::Read).await?,
    };
    let last_event_id = headers.get(LAST_EVENT_ID).map(|id| id.to_str().unwrap_or("?"));
    let query = LogsQuery::read(query, last_event_id, &hubs.config)?;
    let upgrade = match upgrade {
        Ok(upgrade) => Some(upgrade),
        Err(refused) if headers.contains_key(header::UPGRADE) => return Ok(refused.into_response()),
        Err(_) => None,
    };
    let format = match upgrade {
        Some(_) => Format::WebSocket,
        None => Format::accepted(&headers),
    };
    let admitted = hubs.tails.admit(&app, peer.ip(), &hubs.config, &hubs.metrics.tails)?;
    let tail = open_named(&hubs, app, format, &query).await?;
    let heartbeat = hubs.config.heartbeat;
    let Some(upgrade) = upgrade else {
        let gzip = takes_gzip(&headers);
        let body = body::body(tail, pass, admitted, format, gzip, heartbeat);
        let content_type = [(header::CONTENT_TYPE, format.content_type())];
        let mut response = (HEADERS, content_type, body).into_response();
        if gzip {
            response
                .headers_mut()
                .insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        return Ok(response);
    };
    let tracker = hubs.tracker();
    Ok(upgrade
        .max_message_size(socket::MAX_MESSAGE_BYTES)
        .read_buffer_size(socket::READ_BUFFER_BYTES)
        .write_buffer_size(0)
        .on_upgrade(move |socket| tracker.track_future(socket::serve(socket, tail, pass, admitted, heartbeat))))
}

/// The tail that was asked for. An app that keys name, or who decides, exists before its first line: its topic is made for whoever reads it first.
async fn open_named(hubs: &Arc<Hubs>, app: AppName, format: Format, query: &LogsQuery) -> Result<Tail, ApiError> {
    match open(hubs, app.clone(), format, query).await {
        Err(ApiError::UnknownApp) if hubs.access.names(&app) => {
            let made = hubs.bus.create(&app).await;
            made.map_err(|error| ApiError::from_bus(error, &app))?;
            open(hubs, app, format, query).await
        }
        opened => opened,
    }
}

/// The tail that was asked for, with all that it begins with.
async fn open(hubs: &Arc<Hubs>, app: AppName, format: Format, query: &LogsQuery) -> Result<Tail, ApiError> {
    let until = query.until().map(left_until);
    if !query.follow || until == Some(None) {
        let backlog = backlog::ended(hubs, &app, query).await;
        let backlog = backlog.map_err(|error| ApiError::from_bus(error, &app))?;
        return Ok(Tail::ended(app, format, backlog));
    }
    let attached = hubs.attach(&app).await?;
    let backlog = backlog::joined(hubs, &attached.hub, query).await;
    let overflowed = hubs.metrics.overflowed_lines.clone();
    Ok(Tail::joined(attached, format, backlog, until.flatten(), overflowed))
}

/// When the last line of then has come, with what the way takes. `None` where that has passed.
fn left_until(until: Timestamp) -> Option<Instant> {
    let left = u64::try_from(until.0.saturating_sub(Timestamp::now().0)).ok()?;
    let way = crate::hub::HOLD * 2;
    Instant::now().checked_add(std::time::Duration::from_nanos(left) + way)
}
