//! `GET /api/apps/{app}/logs`: the one reading endpoint.

use std::{convert::Infallible, sync::Arc};

use axum::{
    body::Body,
    extract::{
        Path, Query, State,
        rejection::{PathRejection, QueryRejection},
    },
    http::header,
    response::{IntoResponse, Response},
};
use bus::{AppName, BusError};
use bytes::Bytes;
use futures::stream;

use crate::{
    error::{ApiError, ErrorBody},
    gather::notice_frame,
    history::{self, History},
    hubs::{Attached, Hubs},
    notice,
    query::{LogsQuery, RawLogsQuery},
    tail::Tail,
};

/// Reads an app's log: history first, then, unless told not to, what is printed from now on.
///
/// Plain text, a line each: `2026-11-23T07:00:00.123456+00:00 myapp[web-7d4b9c-x2x9z]: text`. Chunked, whole lines, each as soon as it is there. What is missing
/// is told in its place, by a line of the process `tributary`.
#[utoipa::path(
    get,
    path = "/api/apps/{app}/logs",
    tag = "logs",
    params(("app" = String, Path, description = "The app's name"), RawLogsQuery),
    responses(
        (status = 200, description = "The lines", body = String, content_type = "text/plain"),
        (status = 404, description = "No such app", body = ErrorBody),
        (status = 422, description = "A value that cannot be meant", body = ErrorBody),
        (status = 503, description = "The bus is not available", body = ErrorBody),
    )
)]
pub(crate) async fn logs(
    State(hubs): State<Arc<Hubs>>,
    app: Result<Path<String>, PathRejection>,
    query: Result<Query<RawLogsQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let query = LogsQuery::read(query, &hubs.config)?;
    // What cannot be an app's name names none.
    let app = app
        .ok()
        .and_then(|Path(app)| app.parse::<AppName>().ok())
        .ok_or(ApiError::UnknownApp)?;
    let body = if query.follow {
        let attached = hubs.attach(&app).await?;
        Body::from_stream(tail(&hubs, attached, query.num_lines).await.into_stream())
    } else {
        let history = read_back(&hubs, &app, query.num_lines).await;
        let history = history.map_err(|error| ApiError::from_bus(error, &app))?;
        Body::from_stream(stream::iter(history.text.map(Ok::<Bytes, Infallible>)))
    };
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], body).into_response())
}

/// History and live, joined: the hub listens before the read-back begins.
async fn tail(hubs: &Hubs, attached: Attached, num_lines: u64) -> Tail {
    let hub = Arc::clone(&attached.hub);
    let overflowed = hubs.metrics.overflowed_lines.clone();
    if let Some((texts, place)) = hub.ring.last_lines(num_lines) {
        return Tail::new(attached, place, texts, overflowed);
    }
    let _turn = hub.read_backs.lock().await;
    let place = hub.ring.end();
    match read_back(hubs, &hub.app, num_lines).await {
        Ok(history) => Tail::after(attached, place, history, overflowed),
        Err(error) => {
            tracing::warn!(app = %hub.app, %error, "no history for a tail");
            let told = notice_frame(hub.app.as_str(), &notice::no_history()).text;
            Tail::new(attached, place, vec![told], overflowed)
        }
    }
}

async fn read_back(hubs: &Hubs, app: &AppName, lines: u64) -> Result<History, BusError> {
    // The semaphore is never closed.
    let _turn = hubs.read_backs.acquire().await.map_err(|_| BusError::Closed)?;
    hubs.metrics.read_backs.inc();
    history::read_back(&*hubs.bus, app, lines, &hubs.config).await
}
