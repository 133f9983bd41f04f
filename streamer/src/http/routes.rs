//! The routes of the HTTP API and its OpenAPI description.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, State},
    http::{HeaderValue, StatusCode, header},
};
use tower_http::{set_header::SetResponseHeaderLayer, timeout::RequestBodyTimeoutLayer};
use utoipa::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    error::ApiError,
    http::{
        access_log, account,
        allowed_origins::{self, AllowedOrigins},
        drains, logs, sessions,
        state::AppState,
    },
};

/// Makes browsers use TLS for a year (RFC 6797).
const HSTS: HeaderValue = HeaderValue::from_static("max-age=31536000");

/// Maximum time between two parts of a request body.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// Limit of a request body; several times the longest URL of a drain.
const MAX_BODY_BYTES: usize = 16 * 1024;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Tributary",
        description = "Reads the logs of apps and manages their drains. If lines are lost, a gap notice appears at that \
                       point in the stream, with the count and the reason."
    ),
    tags(
        (name = "logs", description = "Reading logs"),
        (name = "drains", description = "Forwarding logs to syslog and HTTPS receivers"),
        (name = "account", description = "API keys"),
        (name = "health", description = "Health of the server"),
    )
)]
struct Description;

/// Returns the routes with their descriptions.
fn described() -> OpenApiRouter<Arc<AppState>> {
    OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(logs::logs))
        .routes(routes!(sessions::create))
        .routes(routes!(
            drains::manage::list,
            drains::manage::add,
            drains::manage::remove
        ))
        .routes(routes!(drains::status::show))
        .routes(routes!(drains::status::test))
        .routes(routes!(account::account))
        .routes(routes!(account::login))
        .routes(routes!(healthz))
        .routes(routes!(readyz))
}

/// Returns the OpenAPI description that is served as `/openapi.json`.
pub fn openapi() -> utoipa::openapi::OpenApi {
    described().into_openapi()
}

/// Returns the router with all middleware. `secure`: the server uses TLS.
pub(crate) fn router(state: Arc<AppState>, origins: &AllowedOrigins, secure: bool) -> Router {
    let (router, description) = described().split_for_parts();
    let router = router
        .route("/openapi.json", axum::routing::get(|| async { Json(description) }))
        .fallback(|| async { ApiError::UnknownPath })
        .method_not_allowed_fallback(|| async { ApiError::MethodNotAllowed })
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(origins.cors())
        .layer(axum::middleware::from_fn_with_state(
            origins.clone(),
            allowed_origins::check_origin,
        ))
        .layer(axum::middleware::from_fn(access_log::log_request))
        .layer(RequestBodyTimeoutLayer::new(BODY_TIMEOUT))
        .with_state(state);
    if secure {
        return router.layer(SetResponseHeaderLayer::overriding(
            header::STRICT_TRANSPORT_SECURITY,
            HSTS,
        ));
    }
    router
}

/// Check that the process is running
#[utoipa::path(get, path = "/healthz", tag = "health", responses((status = 200, description = "The process is running", body = String)))]
async fn healthz() -> &'static str {
    "ok\n"
}

/// Check that the bus is available
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "health",
    responses(
        (status = 200, description = "The bus is available", body = String),
        (status = 503, description = "The bus is unavailable", body = String)
    )
)]
async fn readyz(State(state): State<Arc<AppState>>) -> (StatusCode, &'static str) {
    match state.hubs.bus.check().await {
        Ok(_) => (StatusCode::OK, "ok\n"),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "the bus is unavailable\n"),
    }
}
