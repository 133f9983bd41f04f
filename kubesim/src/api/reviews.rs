//! `TokenReview`, `SubjectAccessReview` and `SelfSubjectAccessReview`, answered from the scenario's
//! users and RBAC objects.

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde_json::{Value, json};

use super::authorize;
use super::response::{ResponseFormat, SimState, json_response};
use super::status::Status;
use crate::access::RequestAttributes;

/// `POST /apis/authentication.k8s.io/v1/tokenreviews`.
pub(super) async fn token_review(State(sim): SimState, headers: HeaderMap, body: Bytes) -> Response {
    review(&headers, &body, |review| {
        let token = review["spec"]["token"].as_str().unwrap_or_default();
        let users = sim.state.users.lock();
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
pub(super) async fn subject_access_review(State(sim): SimState, headers: HeaderMap, body: Bytes) -> Response {
    review(&headers, &body, |review| {
        let users = sim.state.users.lock();
        let user = users.iter().find(|user| review["spec"]["user"] == *user.name);
        json!({"allowed": user.is_some_and(|user| authorize::is_allowed(&sim, user, &review_attributes(review)))})
    })
}

/// `POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews`: for the user of the request.
/// Without `authorize`, everything is allowed.
pub(super) async fn self_subject_access_review(State(sim): SimState, headers: HeaderMap, body: Bytes) -> Response {
    let user = authorize::identify(&sim, &headers);
    review(&headers, &body, |review| {
        let allowed = !sim.authorize
            || user
                .as_ref()
                .is_some_and(|user| authorize::is_allowed(&sim, user, &review_attributes(review)));
        json!({"allowed": allowed})
    })
}

/// Returns the attributes in a review's spec.
fn review_attributes(review: &Value) -> RequestAttributes {
    let spec = &review["spec"]["resourceAttributes"];
    let text = |name: &str| spec[name].as_str().unwrap_or_default().to_owned();
    let resource = match (text("resource"), text("subresource")) {
        (resource, subresource) if subresource.is_empty() => resource,
        (resource, subresource) => format!("{resource}/{subresource}"),
    };
    RequestAttributes {
        verb: text("verb"),
        group: text("group"),
        resource,
        namespace: text("namespace"),
        name: text("name"),
    }
}

fn review(headers: &HeaderMap, body: &[u8], decide: impl FnOnce(&Value) -> Value) -> Response {
    let format = ResponseFormat::from_headers(headers);
    match serde_json::from_slice::<Value>(body) {
        Ok(mut review) => {
            review["status"] = decide(&review);
            json_response(StatusCode::CREATED, format.print(&review))
        }
        Err(_) => Status::unrecognized().respond(&format),
    }
}
