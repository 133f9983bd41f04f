//! `POST /api/apps/{app}/log-sessions`: a link that opens an app's log for a short time, for browsers.

use std::sync::Arc;

use axum::{
    Json,
    extract::{ConnectInfo, Path, State, rejection::PathRejection},
    http::{HeaderMap, StatusCode},
};
use registry::Action;
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    connection::Peer,
    error::{ApiError, ErrorBody},
    hubs::Hubs,
};

/// An answer.
#[derive(Serialize, ToSchema)]
pub(crate) struct Opened {
    data: Session,
}

/// A link that opens a log.
#[derive(Serialize, ToSchema)]
struct Session {
    /// Relative to this server: whoever has it reads the app's log, until then; parameters such as `num_lines` can be added.
    url: String,
    /// When it opens nothing any more, seconds since 1970. What is open then goes on. None where no key is asked for.
    expires_at: Option<u64>,
}

/// Opens a session: a link for an event stream or a WebSocket, which a browser cannot give a key.
#[utoipa::path(
    post,
    path = "/api/apps/{app}/log-sessions",
    tag = "logs",
    params(("app" = String, Path, description = "The app's name")),
    responses(
        (status = 201, description = "The link", body = Opened),
        (status = 401, description = "No good key", body = ErrorBody),
        (status = 404, description = "No such app, or none that the key may read", body = ErrorBody),
        (status = 429, description = "Too many bad keys", body = ErrorBody),
        (status = 503, description = "Who decides does not answer", body = ErrorBody),
    )
)]
pub(crate) async fn open(
    State(hubs): State<Arc<Hubs>>,
    ConnectInfo(Peer(peer)): ConnectInfo<Peer>,
    headers: HeaderMap,
    app: Result<Path<String>, PathRejection>,
) -> Result<(StatusCode, Json<Opened>), ApiError> {
    let (app, _pass) = hubs.access.enter(&headers, peer.ip(), app, Action::Read).await?;
    let session = hubs.access.open_session(&headers, peer.ip(), &app)?;
    // Names of apps are of characters that a path holds as they are.
    let path = format!("/api/apps/{app}/logs");
    let data = match session {
        Some((word, end)) => Session {
            url: format!("{path}?session={word}"),
            expires_at: Some(end),
        },
        None => Session {
            url: path,
            expires_at: None,
        },
    };
    Ok((StatusCode::CREATED, Json(Opened { data })))
}
