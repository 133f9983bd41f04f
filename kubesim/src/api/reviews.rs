//! Who a token is, and what that one may do: `TokenReview` and `SubjectAccessReview`, by the scenario's users.

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde_json::{Value, json};

use super::status::{self, Status};
use super::{Client, Shared, authorize};
use crate::access::Action;

/// `POST /apis/authentication.k8s.io/v1/tokenreviews`.
pub(super) async fn token(State(sim): Shared, headers: HeaderMap, body: Bytes) -> Response {
    review(&headers, &body, |review| {
        let token = review["spec"]["token"].as_str().unwrap_or_default();
        let users = sim.condition.users.lock();
        match users.iter().find(|user| user.token == token) {
            Some(user) => json!({
                "authenticated": true,
                "user": {"username": user.name, "uid": user.name, "groups": ["system:authenticated"]},
                "audiences": ["https://kubernetes.default.svc.cluster.local"],
            }),
            None => json!({"user": {}, "error": "[invalid bearer token, token lookup failed]"}),
        }
    })
}

/// `POST /apis/authorization.k8s.io/v1/subjectaccessreviews`.
pub(super) async fn access(State(sim): Shared, headers: HeaderMap, body: Bytes) -> Response {
    review(&headers, &body, |review| {
        let users = sim.condition.users.lock();
        let user = users.iter().find(|user| review["spec"]["user"] == *user.name);
        json!({"allowed": user.is_some_and(|user| authorize::may(&sim, user, &action(review)))})
    })
}

/// `POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews`: of who asks. Where nobody is asked who they are, everybody may do everything.
pub(super) async fn own_access(State(sim): Shared, headers: HeaderMap, body: Bytes) -> Response {
    let user = authorize::asks(&sim, &headers);
    review(&headers, &body, |review| {
        let allowed = !sim.authorize
            || user
                .as_ref()
                .is_some_and(|user| authorize::may(&sim, user, &action(review)));
        json!({"allowed": allowed})
    })
}

/// What a review asks about.
fn action(review: &Value) -> Action {
    let asked = &review["spec"]["resourceAttributes"];
    let text = |name: &str| asked[name].as_str().unwrap_or_default().to_owned();
    let resource = match (text("resource"), text("subresource")) {
        (resource, subresource) if subresource.is_empty() => resource,
        (resource, subresource) => format!("{resource}/{subresource}"),
    };
    Action {
        verb: text("verb"),
        group: text("group"),
        resource,
        namespace: text("namespace"),
        name: text("name"),
    }
}

fn review(headers: &HeaderMap, body: &[u8], decide: impl FnOnce(&Value) -> Value) -> Response {
    let client = Client::of(headers);
    match serde_json::from_slice::<Value>(body) {
        Ok(mut review) => {
            review["status"] = decide(&review);
            status::answer(StatusCode::CREATED, client.print(&review))
        }
        Err(_) => Status::unrecognized().respond(&client),
    }
}
