//! What is served, and its description.

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
    account, drains,
    error::ApiError,
    hubs::Hubs,
    logs, record,
    same_site::{self, Sites},
    sessions,
};

/// Browsers are to come with TLS alone, for a year (RFC 6797).
const HSTS: HeaderValue = HeaderValue::from_static("max-age=31536000");

/// How long a client may send nothing of a body.
const BODY_WAIT: Duration = Duration::from_secs(10);

/// The largest body that is read: several times the longest URL of a drain.
const MAX_BODY_BYTES: usize = 16 * 1024;

#[derive(OpenApi)]
#[openapi(info(
    title = "Tributary",
    description = "Reads apps' logs. What is missing is told, never left out in silence."
))]
struct Description;

/// Each route with its description.
fn described() -> OpenApiRouter<Arc<Hubs>> {
    OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(logs::logs))
        .routes(routes!(sessions::open))
        .routes(routes!(drains::list, drains::add, drains::remove))
        .routes(routes!(drains::one::show))
        .routes(routes!(drains::one::test))
        .routes(routes!(account::account))
        .routes(routes!(account::login))
        .routes(routes!(healthz))
        .routes(routes!(readyz))
}

/// The description of the API, as it is served under `/openapi.json`.
pub fn openapi() -> utoipa::openapi::OpenApi {
    described().into_openapi()
}

/// All that is served.
pub(crate) fn router(hubs: Arc<Hubs>, sites: &Sites, secure: bool) -> Router {
    let (router, description) = described().split_for_parts();
    let router = router
        .route("/openapi.json", axum::routing::get(|| async { Json(description) }))
        .fallback(|| async { ApiError::UnknownPath })
        .method_not_allowed_fallback(|| async { ApiError::Method })
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(sites.cors())
        .layer(axum::middleware::from_fn_with_state(
            sites.clone(),
            same_site::same_site,
        ))
        .layer(axum::middleware::from_fn(record::record))
        .layer(RequestBodyTimeoutLayer::new(BODY_WAIT))
        .with_state(hubs);
    if secure {
        return router.layer(SetResponseHeaderLayer::overriding(
            header::STRICT_TRANSPORT_SECURITY,
            HSTS,
        ));
    }
    router
}

/// Says that the process runs.
#[utoipa::path(get, path = "/healthz", tag = "health", responses((status = 200, description = "It runs", body = String)))]
async fn healthz() -> &'static str {
    "ok\n"
}

/// Says whether requests can be served: whether the bus answers.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "health",
    responses((status = 200, description = "The bus answers", body = String), (status = 503, description = "It does not", body = String))
)]
async fn readyz(State(hubs): State<Arc<Hubs>>) -> (StatusCode, &'static str) {
    match hubs.bus.check().await {
        Ok(_) => (StatusCode::OK, "ok\n"),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "the bus does not answer\n"),
    }
}
