//! Responses: JSON in the client's format, with the API server's common headers.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, USER_AGENT};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use serde_json::Value;

use crate::simulation::Simulation;

/// State of every handler.
pub(super) type SimState = State<Arc<Simulation>>;

/// A response body that ends without its last chunk.
#[derive(Debug, thiserror::Error)]
#[error("the response was aborted")]
pub(super) struct StreamBroken;

/// Response format that a client asks for in its headers.
#[derive(Debug, Clone, Copy)]
pub(super) struct ResponseFormat {
    /// Indented JSON, for curl and browsers.
    pub(super) pretty: bool,
    /// A `Table`, for the columns of kubectl.
    pub(super) table: bool,
}

impl ResponseFormat {
    /// Determines the format from `User-Agent` and `Accept`.
    pub(super) fn from_headers(headers: &HeaderMap) -> Self {
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

    /// Prints an object in the client's format.
    pub(super) fn print(&self, object: &Value) -> String {
        if self.pretty {
            format!("{object:#}")
        } else {
            format!("{object}\n")
        }
    }
}

/// Responds with an object.
pub(super) fn ok_json(format: &ResponseFormat, object: &Value) -> Response {
    json_response(StatusCode::OK, format.print(object))
}

/// Creates a JSON response with the API server's common headers.
pub(super) fn json_response(code: StatusCode, body: impl Into<Body>) -> Response {
    response(code, "application/json", body.into())
}

/// Creates a response of a content type with the API server's common headers.
pub(super) fn response(code: StatusCode, content_type: &'static str, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = code;
    let headers = response.headers_mut();
    if code != StatusCode::NO_CONTENT {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    }
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    if let Ok(id) = HeaderValue::from_str(&crate::ids::uid()) {
        headers.insert("audit-id", id);
    }
    response
}
