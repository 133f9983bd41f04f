//! `POST /api/apps/{app}/log-sessions`: short-lived links for browsers.

use std::sync::Arc;

use axum::{Json, extract::State, http::StatusCode};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    error::ApiError,
    http::{
        extract::{AccessErrors, AppParam, Authorized, ReadLogs},
        state::AppState,
    },
};

/// The response.
#[derive(Serialize, ToSchema)]
pub(crate) struct SessionResponse {
    data: Session,
}

/// A link that opens a log.
#[derive(Serialize, ToSchema)]
struct Session {
    /// URL path relative to this server. It reads the app's log without further authentication
    /// until it expires; append query parameters such as `num_lines`.
    #[schema(example = "/api/apps/shop/logs?session=…")]
    url: String,
    /// When the link expires, in Unix seconds. Responses that are open then continue. Null if
    /// authentication is disabled.
    expires_at: Option<u64>,
}

/// Create a log session
///
/// Returns a link for an event stream or a WebSocket, because browsers cannot send an API key with
/// either.
#[utoipa::path(
    post,
    path = "/api/apps/{app}/log-sessions",
    tag = "logs",
    params(AppParam),
    responses((status = 201, description = "The link", body = SessionResponse), AccessErrors)
)]
pub(crate) async fn create(
    State(state): State<Arc<AppState>>,
    request: Authorized<ReadLogs>,
) -> Result<(StatusCode, Json<SessionResponse>), ApiError> {
    let Authorized { app, client, .. } = request;
    let session = state.access.create_session(&client.headers, client.address, &app)?;
    // App names need no percent-encoding.
    let path = format!("/api/apps/{app}/logs");
    let data = match session {
        Some((token, expires_at)) => Session {
            url: format!("{path}?session={token}"),
            expires_at: Some(expires_at),
        },
        None => Session {
            url: path,
            expires_at: None,
        },
    };
    Ok((StatusCode::CREATED, Json(SessionResponse { data })))
}
