//! Every route, and how it is asked.

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};

use super::{BOUND, Stack};

impl Stack {
    /// Asks, with this `Authorization`.
    pub async fn ask(&self, method: &Method, path: &str, authorization: Option<&str>, body: &str) -> Answer {
        let client = Client::builder(TokioExecutor::new()).build_http();
        let mut request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.addr));
        if let Some(authorization) = authorization {
            request = request.header("authorization", authorization);
        }
        let request = request.body(Full::new(Bytes::from(body.to_owned()))).unwrap();
        let asked = async {
            let response = client.request(request).await.unwrap();
            let (parts, body) = response.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            Answer {
                status: parts.status,
                headers: parts.headers,
                body: String::from_utf8(body.to_vec()).unwrap(),
            }
        };
        tokio::time::timeout(BOUND, asked).await.expect("an answer in time")
    }
}

#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: String,
}

impl Answer {
    /// One ASCII line of JSON that says something.
    pub fn says(&self, word: &str) {
        assert!(self.body.is_ascii() && !self.body.contains('\n'), "{self:?}");
        let body: serde_json::Value = serde_json::from_str(&self.body).unwrap();
        let said = body["errors"][""][0].as_str().unwrap();
        assert!(said.contains(word), "{word:?} in {said:?}");
        assert_eq!(self.headers["content-type"], "application/json; charset=utf-8");
        assert!(!self.body.contains("hunter2"));
    }
}

/// What a route is, to somebody without the right key.
#[derive(Clone, Copy, PartialEq)]
pub enum Row {
    /// An app's: asked for with this body.
    OfApp(&'static str),
    /// The holder's own.
    OfHolder,
    /// Anybody's.
    Open,
}

/// Every route. One that is missing here fails the test below.
pub const ROWS: [(&str, &str, Row); 11] = [
    ("POST", "/api/apps/{app}/log-sessions", Row::OfApp("")),
    ("GET", "/api/apps/{app}/logs", Row::OfApp("")),
    ("GET", "/api/apps/{app}/drains", Row::OfApp("")),
    (
        "POST",
        "/api/apps/{app}/drains",
        Row::OfApp(r#"{"url": "https://evil.example.com/"}"#),
    ),
    (
        "DELETE",
        "/api/apps/{app}/drains",
        Row::OfApp(r#"{"drain_id": "DRAIN"}"#),
    ),
    ("GET", "/api/apps/{app}/drains/{id}", Row::OfApp("")),
    ("POST", "/api/apps/{app}/drains/{id}/test", Row::OfApp("")),
    ("GET", "/api/users", Row::OfHolder),
    ("GET", "/api/login", Row::Open),
    ("GET", "/healthz", Row::Open),
    ("GET", "/readyz", Row::Open),
];
