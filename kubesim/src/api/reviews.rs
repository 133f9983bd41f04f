//! Who a token is, and what that one may do: `TokenReview` and `SubjectAccessReview`, by the scenario's users.

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde_json::{Value, json};

use super::status::{self, Status};
use super::{Client, Shared};
use crate::logs::log::lock;

/// `POST /apis/authentication.k8s.io/v1/tokenreviews`.
pub(super) async fn token(State(sim): Shared, headers: HeaderMap, body: Bytes) -> Response {
    review(&headers, &body, |review| {
        let token = review["spec"]["token"].as_str().unwrap_or_default();
        let users = lock(&sim.condition.users);
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
        let (spec, asked) = (&review["spec"], &review["spec"]["resourceAttributes"]);
        let text = |name: &str| asked[name].as_str().unwrap_or_default();
        let of = |namespaces: &[String]| namespaces.iter().any(|namespace| namespace == text("namespace"));
        let users = lock(&sim.condition.users);
        let user = users.iter().find(|user| spec["user"] == *user.name);
        let allowed = user.is_some_and(|user| {
            match (text("group"), text("resource"), text("subresource"), text("verb")) {
                ("", "pods", "log", "get") => of(&user.reads) || of(&user.manages),
                // What no API server knows is decided by its rules all the same.
                (group, "drains", "", "update") if !group.is_empty() => of(&user.manages),
                _ => false,
            }
        });
        json!({"allowed": allowed})
    })
}

fn review(headers: &HeaderMap, body: &[u8], decide: impl FnOnce(&Value) -> Value) -> Response {
    let client = Client::of(headers);
    match serde_json::from_slice::<Value>(body) {
        Ok(mut review) => {
            review["status"] = decide(&review);
            status::answer(StatusCode::CREATED, client.print(&review))
        }
        Err(_) => Status::bad_request("the object provided is unrecognized").respond(&client),
    }
}
