//! `GET /api/apps/{app}/logs`: reads an app's log.

use std::sync::Arc;

use axum::{
    extract::{
        Query, State,
        rejection::QueryRejection,
        ws::{WebSocketUpgrade, rejection::WebSocketUpgradeRejection},
    },
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bus::{AppName, Timestamp};
use registry::Action;
use system::clock::{self, Instant};
use tokio::sync::oneshot;

use crate::{
    error::{ApiError, ErrorBody},
    format::{Format, sse},
    history,
    http::{
        body::{self, accepts_gzip},
        extract::{AccessErrors, AppParam, AppPath, Client},
        state::AppState,
        websocket,
    },
    query::{LogsQuery, RawLogsQuery},
    tail::Tail,
};

/// Sent by browsers when they reconnect to an event stream.
const LAST_EVENT_ID: &str = "last-event-id";

/// Tells caches not to store the response, and proxies not to buffer it.
const HEADERS: [(HeaderName, HeaderValue); 3] = [
    (header::VARY, HeaderValue::from_static("accept, accept-encoding")),
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (
        HeaderName::from_static("x-accel-buffering"),
        HeaderValue::from_static("no"),
    ),
];

/// Read an app's log
///
/// Sends history first, then, unless `follow=false`, new lines as they arrive. If lines were lost,
/// a gap notice (a line of the process `tributary`) appears at that point in the stream.
///
/// The first supported media type in `Accept` selects the format:
///
/// - `text/plain` (default): one line each,
///   `2026-11-23T07:00:00.123456+00:00 shop[web-7d4b9c-x2x9z]: text`
/// - `application/x-ndjson`: one JSON object per line
/// - `text/event-stream`: the same objects as server-sent events; each `id` is a cursor. The last
///   event of a burst has an `id`, or an event `cursor` with the `id` follows within a second
///
/// With `Upgrade: websocket`, text messages `{"cursor": …, "lines": […]}` are sent. The body is
/// chunked, and compressed if `Accept-Encoding` contains `gzip`.
#[utoipa::path(
    get,
    path = "/api/apps/{app}/logs",
    tag = "logs",
    params(
        AppParam,
        RawLogsQuery,
        ("last-event-id" = Option<String>, Header, description = "Replaces `cursor`; browsers send it when they reconnect. At most 4 KiB.", max_length = 4096),
    ),
    responses(
        (status = 101, description = "WebSocket with text messages `{\"cursor\": …, \"lines\": […]}`"),
        (status = 200, description = "The lines", content(
            (String = "text/plain"), (String = "application/x-ndjson"), (String = "text/event-stream")
        )),
        (status = 204, description = "`last-event-id` is that of an answer without `follow` that was complete"),
        (status = 422, description = "A parameter is invalid", body = ErrorBody),
        AccessErrors,
    )
)]
pub(crate) async fn logs(
    State(state): State<Arc<AppState>>,
    client: Client,
    path: AppPath,
    query: Result<Query<RawLogsQuery>, QueryRejection>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, ApiError> {
    // Authorization comes first, so that parameter errors reveal nothing about an app.
    let session = query.as_ref().ok().and_then(|query| query.session());
    let (app, grant) = match session {
        Some(token) => state.access.authorize_session(token, client.address, path.app).await?,
        None => {
            let authorized = state
                .access
                .authorize(&client.headers, client.address, path.app, Action::Read);
            authorized.await?
        }
    };
    let config = state.hubs.config;
    let last_event_id = client.headers.get(LAST_EVENT_ID).map(|id| id.to_str().unwrap_or("?"));
    if last_event_id.is_some_and(|id| id.starts_with(sse::FINISHED)) {
        return Ok((HEADERS, StatusCode::NO_CONTENT).into_response());
    }
    let mut query = LogsQuery::parse(query, last_event_id, &config)?;
    let upgrade = match upgrade {
        Ok(upgrade) => Some(upgrade),
        Err(rejection) if client.headers.contains_key(header::UPGRADE) => return Ok(rejection.into_response()),
        Err(_) => None,
    };
    let format = match upgrade {
        Some(_) => Format::WebSocket,
        None => Format::accepted(&client.headers),
    };
    let admitted = state
        .tail_limits
        .admit(&app, client.address, &config, &state.hubs.metrics.tails)?;
    let tail = open_or_create(&state, app, format, &mut query).await?;
    let Some(upgrade) = upgrade else {
        let gzip = accepts_gzip(&client.headers);
        let body = body::body(tail, grant, admitted, format, gzip, config.heartbeat);
        let content_type = [(header::CONTENT_TYPE, format.content_type())];
        let mut response = (HEADERS, content_type, body).into_response();
        if gzip {
            response
                .headers_mut()
                .insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        return Ok(response);
    };
    let tracker = state.hubs.tracker();
    // Created here because axum's task, which calls the closure, belongs to no simulated machine.
    let (upgraded, socket) = oneshot::channel();
    let serving = system::task::scoped(async move {
        if let Ok(socket) = socket.await {
            websocket::serve(socket, tail, grant, admitted, config.heartbeat).await;
        }
    });
    Ok(upgrade
        .max_message_size(websocket::MAX_MESSAGE_BYTES)
        .read_buffer_size(websocket::READ_BUFFER_BYTES)
        .write_buffer_size(0)
        .on_upgrade(move |socket| {
            // The receiver is in `serving`.
            let _ = upgraded.send(socket);
            tracker.track_future(serving)
        }))
}

/// Opens a tail. If the app has no topic yet but authorization implies that it exists, creates the
/// topic.
async fn open_or_create(
    state: &AppState,
    app: AppName,
    format: Format,
    query: &mut LogsQuery,
) -> Result<Tail, ApiError> {
    match open(state, app.clone(), format, query).await {
        Err(ApiError::UnknownApp) if state.access.implies_existence(&app) => {
            let created = state.hubs.bus.create(&app).await;
            created.map_err(|error| ApiError::from_bus(error, &app))?;
            open(state, app, format, query).await
        }
        opened => opened,
    }
}

/// Opens a tail with its history.
async fn open(state: &AppState, app: AppName, format: Format, query: &mut LogsQuery) -> Result<Tail, ApiError> {
    let hubs = &state.hubs;
    let until = query.until().map(live_until);
    if !query.follow || until == Some(None) {
        let history = history::load(hubs, &app, query).await;
        let history = history.map_err(|error| ApiError::from_bus(error, &app))?;
        return Ok(Tail::finite(app, format, history));
    }
    let attached = hubs.attach(&app).await?;
    let history = history::load_for_tail(hubs, &attached.hub, query).await;
    Ok(Tail::live(
        attached,
        format,
        history,
        until.flatten(),
        hubs.metrics.clone(),
    ))
}

/// Returns when the last line with a timestamp up to `until` has arrived. `None` if `until` has
/// passed.
fn live_until(until: Timestamp) -> Option<Instant> {
    let left = u64::try_from(until.0.saturating_sub(Timestamp::now().0)).ok()?;
    let delivery = bus::reassembly::REORDER_WINDOW * 2;
    clock::steady().checked_add(std::time::Duration::from_nanos(left) + delivery)
}
