//! All routes, and requests to them.

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};

use super::{Stack, TIMEOUT};

impl Stack {
    /// Sends a request with this `Authorization` header.
    pub async fn request(&self, method: &Method, path: &str, authorization: Option<&str>, body: &str) -> Answer {
        let client = Client::builder(TokioExecutor::new()).build_http();
        let mut request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.addr));
        if let Some(authorization) = authorization {
            request = request.header("authorization", authorization);
        }
        let request = request.body(Full::new(Bytes::from(body.to_owned()))).unwrap();
        let answer = async {
            let response = client.request(request).await.unwrap();
            let (parts, body) = response.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            Answer {
                status: parts.status,
                headers: parts.headers,
                body: String::from_utf8(body.to_vec()).unwrap(),
            }
        };
        tokio::time::timeout(TIMEOUT, answer).await.expect("a response in time")
    }
}

#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: String,
}

impl Answer {
    /// Asserts that the body is one ASCII line of JSON with an error that contains `word`.
    pub fn assert_error(&self, word: &str) {
        assert!(self.body.is_ascii() && !self.body.contains('\n'), "{self:?}");
        let body: serde_json::Value = serde_json::from_str(&self.body).unwrap();
        let message = body["errors"][""][0].as_str().unwrap();
        assert!(message.contains(word), "{word:?} in {message:?}");
        assert_eq!(self.headers["content-type"], "application/json; charset=utf-8");
        assert!(!self.body.contains("hunter2"));
    }
}

/// The authorization that a route requires.
#[derive(Clone, Copy, PartialEq)]
pub enum RouteAccess {
    /// A permission for the app; the request has this body.
    App(&'static str),
    /// Any valid key.
    AnyKey,
    Public,
}

/// All routes; a test compares them with the OpenAPI description.
pub const ROUTES: [(&str, &str, RouteAccess); 11] = [
    ("POST", "/api/apps/{app}/log-sessions", RouteAccess::App("")),
    ("GET", "/api/apps/{app}/logs", RouteAccess::App("")),
    ("GET", "/api/apps/{app}/drains", RouteAccess::App("")),
    (
        "POST",
        "/api/apps/{app}/drains",
        RouteAccess::App(r#"{"url": "https://evil.example.com/"}"#),
    ),
    (
        "DELETE",
        "/api/apps/{app}/drains",
        RouteAccess::App(r#"{"drain_id": "DRAIN"}"#),
    ),
    ("GET", "/api/apps/{app}/drains/{id}", RouteAccess::App("")),
    ("POST", "/api/apps/{app}/drains/{id}/test", RouteAccess::App("")),
    ("GET", "/api/users", RouteAccess::AnyKey),
    ("GET", "/api/login", RouteAccess::Public),
    ("GET", "/healthz", RouteAccess::Public),
    ("GET", "/readyz", RouteAccess::Public),
];
