//! The HTTP face: the part of the Kubernetes API that kubectl and log collectors use.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::http::header::{ACCEPT, USER_AGENT};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{any, get, post};
use serde_json::Value;

use crate::simulation::{Refusal, Sim};

mod authorize;
mod continue_token;
mod discovery;
mod list_page;
mod log_options;
mod logs;
mod objects;
mod pod_json;
mod pods;
mod query;
mod reviews;
mod secrets;
mod selector;
mod status;
mod table;
mod watch;

use status::Status;

/// What handlers get.
type Shared = State<Arc<Sim>>;

/// Builds the API's routes.
pub(crate) fn router(sim: Arc<Sim>) -> Router {
    Router::new()
        .route("/version", get(discovery::version))
        .route("/healthz", get(discovery::ok))
        .route("/livez", get(discovery::ok))
        .route("/readyz", get(discovery::ok))
        .route("/api", get(discovery::versions))
        .route("/apis", get(discovery::groups))
        .route("/api/v1", get(discovery::resources))
        .route(
            "/api/v1/namespaces",
            get(discovery::namespaces).post(discovery::create_namespace),
        )
        .route(
            "/api/v1/namespaces/{namespace}",
            get(discovery::namespace).patch(discovery::namespace),
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
        .route("/apis/authentication.k8s.io/v1/tokenreviews", post(reviews::token))
        .route(
            "/apis/authorization.k8s.io/v1/subjectaccessreviews",
            post(reviews::access),
        )
        .route(
            "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
            post(reviews::own_access),
        )
        .method_not_allowed_fallback(async |headers: HeaderMap| {
            Status::method_not_allowed().respond(&Client::of(&headers))
        })
        .fallback(objects::serve)
        .layer(middleware::from_fn_with_state(Arc::clone(&sim), authorize::admit))
        .layer(middleware::from_fn_with_state(Arc::clone(&sim), admit))
        .with_state(sim)
}

/// Lets a request in, unless the API server has too much to do.
async fn admit(State(sim): Shared, request: Request, next: Next) -> Response {
    if *sim.condition.refusal.lock() == Some(Refusal::Busy) {
        return Status::too_many_requests().respond(&Client::of(request.headers()));
    }
    next.run(request).await
}

/// What a request's headers say about how its client wants JSON.
#[derive(Debug, Clone, Copy)]
struct Client {
    /// Indented: people with curl or a browser.
    pretty: bool,
    /// As a `Table`: kubectl printing columns.
    table: bool,
}

impl Client {
    fn of(headers: &HeaderMap) -> Self {
        let text = |name| {
            headers
                .get(name)
                .and_then(|value| value.to_str().ok())
                .unwrap_or_default()
        };
        let agent = text(USER_AGENT);
        Self {
            pretty: agent.starts_with("curl") || agent.starts_with("Mozilla/"),
            table: text(ACCEPT)
                .split(',')
                .next()
                .is_some_and(|first| first.contains("as=Table")),
        }
    }

    /// Prints an object as the API server does for this client.
    fn print(&self, object: &Value) -> String {
        if self.pretty {
            format!("{object:#}")
        } else {
            format!("{object}\n")
        }
    }
}

/// Answers with an object.
fn json(client: &Client, object: &Value) -> Response {
    status::answer(axum::http::StatusCode::OK, client.print(object))
}
