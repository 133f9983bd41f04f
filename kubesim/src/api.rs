//! The HTTP API: the part of the Kubernetes API that kubectl and log collectors use.
//!
//! It reads and changes `store`, reads `logs` and creates and deletes pods through `node`. Error
//! texts and JSON shapes are those of a real API server.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{any, get, post};

use crate::simulation::{Refusal, Simulation};

mod authorize;
mod continue_token;
mod discovery;
mod list_page;
mod log_options;
mod log_stream;
mod logs;
mod namespaces;
mod objects;
mod pod_json;
mod pods;
mod query;
mod response;
mod reviews;
mod secrets;
mod selector;
mod status;
mod table;
mod watch;

use response::{ResponseFormat, SimState};
use status::Status;

/// Builds the routes of the API.
pub(crate) fn router(sim: Arc<Simulation>) -> Router {
    Router::new()
        .route("/version", get(discovery::version))
        .route("/healthz", get(discovery::ok))
        .route("/livez", get(discovery::ok))
        .route("/readyz", get(discovery::ok))
        .route("/api", get(discovery::versions))
        .route("/apis", get(discovery::groups))
        .route("/api/v1", get(discovery::resources))
        .route("/api/v1/namespaces", get(namespaces::list).post(namespaces::create))
        .route(
            "/api/v1/namespaces/{namespace}",
            get(namespaces::read).patch(namespaces::read),
        )
        .route("/api/v1/pods", get(pods::list_all))
        .route("/api/v1/namespaces/{namespace}/pods", get(pods::list_namespace))
        .route(
            "/api/v1/namespaces/{namespace}/pods/{pod}",
            get(pods::read).delete(pods::delete),
        )
        .route("/api/v1/namespaces/{namespace}/pods/{pod}/log", any(logs::serve))
        .route(
            "/api/v1/namespaces/{namespace}/secrets",
            get(secrets::list).post(secrets::create),
        )
        .route(
            "/api/v1/namespaces/{namespace}/secrets/{secret}",
            get(secrets::read).put(secrets::replace).delete(secrets::delete),
        )
        .route(
            "/apis/authentication.k8s.io/v1/tokenreviews",
            post(reviews::token_review),
        )
        .route(
            "/apis/authorization.k8s.io/v1/subjectaccessreviews",
            post(reviews::subject_access_review),
        )
        .route(
            "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
            post(reviews::self_subject_access_review),
        )
        .method_not_allowed_fallback(async |headers: HeaderMap| {
            Status::method_not_allowed().respond(&ResponseFormat::from_headers(&headers))
        })
        .fallback(objects::serve)
        .layer(middleware::from_fn_with_state(Arc::clone(&sim), authorize::authorize))
        .layer(middleware::from_fn_with_state(Arc::clone(&sim), refuse))
        .with_state(sim)
}

/// Holds requests while [`FaultKind::StallRequests`](crate::FaultKind::StallRequests) is active and
/// rejects them while [`FaultKind::ApiBusy`](crate::FaultKind::ApiBusy) is.
async fn refuse(State(sim): SimState, request: Request, next: Next) -> Response {
    let mut stalled = sim.state.requests_stalled.subscribe();
    tokio::select! {
        biased;
        () = sim.stop.cancelled() => {}
        // The sender is in the simulation.
        _ = stalled.wait_for(|stalled| !stalled) => {}
    }
    if *sim.state.refusal.lock() == Some(Refusal::Busy) {
        return Status::too_many_requests().respond(&ResponseFormat::from_headers(request.headers()));
    }
    next.run(request).await
}
