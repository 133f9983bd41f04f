//! Authorization by API keys: every route and method with another app's key and without one.

#![allow(clippy::unwrap_used, reason = "a panic in a helper fails the test")]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests use the operating system directly"
)]

mod support;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use registry::{AddressPolicy, DEFAULT_KEY_LIFETIME, DrainUrl, FileRegistry, Grant, NewKey, Registry, Role};
use streamer::{Access, AllowedOrigins};
use support::{
    routes::{Answer, ROUTES, RouteAccess},
    *,
};
use tempfile::TempDir;
use tokio_tungstenite::{connect_async, tungstenite::client::IntoClientRequest};

const DRAIN: &str = "https://u:hunter2@example.com/logs";

/// A streamer with API keys, and an app with three lines and a drain.
struct Fixture {
    stack: Stack,
    registry: Arc<FileRegistry>,
    drain: u32,
    _dir: TempDir,
}

impl Fixture {
    async fn open() -> Self {
        let dir = TempDir::new().unwrap();
        let opened = FileRegistry::open(dir.path().join("registry.json")).await.unwrap();
        let registry = Arc::new(opened);
        let keys = Arc::clone(&registry) as Arc<dyn Registry>;
        let stack = Stack::with_access(Access::api_keys(Arc::clone(&keys)), keys).await;
        stack.publish([lines(&stream("web-1", Duration::ZERO), 0, 3)]).await;
        let url = DrainUrl::parse(DRAIN, &AddressPolicy::default()).unwrap();
        let drain = registry.add_drain("shop", &url, 5).await.unwrap().id;
        Self {
            stack,
            registry,
            drain,
            _dir: dir,
        }
    }

    async fn key(&self, app: &str, role: Role, lifetime: Duration) -> NewKey {
        let app = app.to_owned();
        let key = self
            .registry
            .add_key("me@example.com", vec![Grant { app, role }], lifetime);
        key.await.unwrap()
    }

    async fn owner(&self, app: &str) -> String {
        self.key(app, Role::Owner, DEFAULT_KEY_LIFETIME).await.key
    }

    async fn request(&self, method: &Method, path: &str, key: Option<&str>, body: &str) -> Answer {
        let authorization = key.map(|key| format!("Bearer {key}"));
        self.stack.request(method, path, authorization.as_deref(), body).await
    }
}

#[test]
fn every_route_is_tested() {
    let described = serde_json::to_value(streamer::openapi()).unwrap();
    let mut routes = BTreeSet::new();
    for (path, methods) in described["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            routes.insert((method.to_uppercase(), path.clone()));
        }
    }
    let tested = ROUTES.map(|(method, path, _)| (method.to_owned(), path.to_owned()));
    assert_eq!(routes, BTreeSet::from(tested));
}

#[tokio::test]
async fn app_routes_return_404_with_another_apps_key_and_401_without_a_key() {
    let fixture = Fixture::open().await;
    let other = fixture.owner("blog").await;
    let before = Arc::clone(&fixture.registry.drains().borrow());
    for (method, path, row) in ROUTES {
        let RouteAccess::App(body) = row else { continue };
        let body = body.replace("DRAIN", &fixture.drain.to_string());
        // Supported and unsupported methods.
        let methods = [
            Method::GET,
            Method::POST,
            Method::PUT,
            Method::PATCH,
            Method::DELETE,
            Method::HEAD,
        ];
        for sent in &methods {
            let existing = path
                .replace("{app}", "shop")
                .replace("{id}", &fixture.drain.to_string());
            let answer = fixture.request(sent, &existing, Some(&other), &body).await;
            let missing = fixture
                .request(
                    sent,
                    &path
                        .replace("{app}", "none-such")
                        .replace("{id}", &fixture.drain.to_string()),
                    Some(&other),
                    &body,
                )
                .await;
            assert_eq!(
                (answer.status, &answer.body),
                (missing.status, &missing.body),
                "{sent} {path}"
            );
            assert!(answer.status.is_client_error(), "{sent} {path}: {answer:?}");
            if sent.as_str() == method {
                assert_eq!(answer.status, StatusCode::NOT_FOUND);
                answer.assert_error("app not found");
                let answer = fixture.request(sent, &existing, None, &body).await;
                assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
                answer.assert_error("authentication required");
                let challenge = answer.headers["www-authenticate"].to_str().unwrap();
                assert!(challenge.starts_with("Basic realm="), "{challenge}");
            }
        }
    }
    assert_eq!(*fixture.registry.drains().borrow(), before, "the drains are unchanged");
    fixture.stack.stop().await;
}

#[tokio::test]
async fn a_websocket_is_refused_before_the_upgrade() {
    let fixture = Fixture::open().await;
    let other = fixture.owner("blog").await;
    let upgrade = |key: &str| {
        let key = format!("Bearer {key}");
        let headers = [
            ("connection", "upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
        ];
        let mut headers: Vec<(&str, String)> = headers.map(|(name, value)| (name, value.to_owned())).to_vec();
        headers.push(("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==".to_owned()));
        headers.push(("authorization", key));
        headers
    };
    for (key, status) in [("x".repeat(40), 401), (other, 404)] {
        let headers = upgrade(&key);
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let answer = fixture.stack.get_with("/api/apps/shop/logs", &headers).await;
        assert_eq!(answer.response.status(), status);
    }
    fixture.stack.stop().await;
}

#[tokio::test]
async fn an_owner_lists_adds_and_removes_drains_as_the_gigalixir_client_does() {
    let fixture = Fixture::open().await;
    let key = fixture.owner("shop").await;
    let path = "/api/apps/shop/drains";
    let list = async || {
        let answer = fixture.request(&Method::GET, path, Some(&key), "").await;
        assert_eq!(answer.status, StatusCode::OK);
        let listed: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
        listed["data"].as_array().unwrap().clone()
    };
    let first = list().await;
    assert_eq!(first[0]["url"], DRAIN);
    assert_eq!(first[0]["id"], fixture.drain);
    assert!(first[0]["token"].as_str().unwrap().starts_with("d."));
    let add = async |url: &str| {
        let body = serde_json::json!({ "url": url }).to_string();
        fixture.request(&Method::POST, path, Some(&key), &body).await
    };
    assert_eq!(
        add("syslog+tls://logs.example.com:6514").await.status,
        StatusCode::CREATED
    );
    for (url, word) in [
        (DRAIN, "already"),
        ("syslog://127.0.0.1:514", "loopback, private or reserved address"),
        ("https://hunter2@localhost/", "loopback, private or reserved address"),
        ("gopher://hunter2.example.com", "scheme"),
    ] {
        let answer = add(url).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{url}");
        answer.assert_error(word);
    }
    for n in 0..3 {
        assert_eq!(
            add(&format!("https://example.com/{n}")).await.status,
            StatusCode::CREATED
        );
    }
    add("https://example.com/6").await.assert_error("5 drains, the maximum");
    for id in [fixture.drain.to_string(), format!("\"{}\"", list().await[0]["id"])] {
        let body = format!("{{\"drain_id\": {id}}}");
        let answer = fixture.request(&Method::DELETE, path, Some(&key), &body).await;
        let is_removed = answer.status == StatusCode::OK;
        assert!(is_removed || answer.status == StatusCode::NOT_FOUND, "{answer:?}");
    }
    assert!(list().await.iter().all(|drain| drain["id"] != fixture.drain));
    for body in ["", "{}", "nonsense", r#"{"drain_id": []}"#] {
        let answer = fixture.request(&Method::DELETE, path, Some(&key), body).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{body}");
    }
    let answer = fixture
        .request(&Method::DELETE, path, Some(&key), r#"{"drain_id": "x"}"#)
        .await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    let answer = fixture
        .request(&Method::POST, path, Some(&key), &"x".repeat(17 * 1024))
        .await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    fixture.stack.stop().await;
}

#[tokio::test]
async fn a_collaborator_reads_the_log_but_cannot_manage_drains() {
    let fixture = Fixture::open().await;
    let key = fixture.key("shop", Role::Collaborator, DEFAULT_KEY_LIFETIME).await.key;
    let answer = fixture
        .request(&Method::GET, "/api/apps/shop/logs?follow=False", Some(&key), "")
        .await;
    assert_eq!((answer.status, answer.body.lines().count()), (StatusCode::OK, 3));
    let answer = fixture
        .request(&Method::GET, "/api/apps/shop/drains", Some(&key), "")
        .await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    answer.assert_error("may read the logs of this app");
    fixture.stack.stop().await;
}

#[tokio::test]
async fn an_account_describes_the_key_and_password_login_is_refused() {
    let fixture = Fixture::open().await;
    let made = fixture.key("shop", Role::Owner, DEFAULT_KEY_LIFETIME).await;
    let answer = fixture.request(&Method::GET, "/api/users", Some(&made.key), "").await;
    let account: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(account["data"]["email"], "me@example.com");
    assert_eq!(
        account["data"]["apps"][0],
        serde_json::json!({"name": "shop", "role": "owner"})
    );
    assert!(!answer.body.contains(&made.key));
    assert_eq!(
        fixture.request(&Method::GET, "/api/users", None, "").await.status,
        StatusCode::UNAUTHORIZED
    );
    let answer = fixture.request(&Method::GET, "/api/login", None, "").await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    answer.assert_error("password login is not supported");
    fixture.stack.stop().await;
}

#[tokio::test]
async fn a_tail_of_an_app_that_only_a_key_names_waits() {
    let fixture = Fixture::open().await;
    let key = fixture.owner("fresh").await;
    let bearer = format!("Bearer {key}");
    let tail = fixture
        .stack
        .get_with("/api/apps/fresh/logs", &[("authorization", &bearer)])
        .await;
    assert_eq!(tail.response.status(), StatusCode::OK);
    drop(tail);
    fixture.stack.stop().await;
}

#[tokio::test]
async fn a_revoked_or_expired_key_ends_its_tails_and_no_others() {
    let fixture = Fixture::open().await;
    let (made, stays) = (
        fixture.key("shop", Role::Owner, DEFAULT_KEY_LIFETIME).await,
        fixture.owner("shop").await,
    );
    let short = fixture.key("shop", Role::Owner, Duration::from_secs(2)).await.key;
    let open = async |key: &str, accept: &str| {
        let bearer = format!("Bearer {key}");
        let headers = [("authorization", bearer.as_str()), ("accept", accept)];
        let mut tail = fixture.stack.get_with("/api/apps/shop/logs", &headers).await;
        assert_eq!(tail.response.status(), StatusCode::OK);
        tail.line().await.expect("history");
        tail
    };
    let mut expired = open(&short, "text/plain").await;
    expired.read_to_end().await;
    let mut revoked = [
        open(&made.key, "text/plain").await,
        open(&made.key, "text/event-stream").await,
    ];
    let mut stayed = open(&stays, "text/plain").await;
    fixture.registry.revoke_key(&made.info.id).await.unwrap();
    for tail in &mut revoked {
        tail.read_to_end().await;
    }
    let answer = fixture
        .request(&Method::GET, "/api/apps/shop/logs", Some(&made.key), "")
        .await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    fixture
        .stack
        .publish([lines(&stream("web-1", Duration::ZERO), 3, 4)])
        .await;
    let last = stayed.lines(3).await;
    assert_eq!(text_of(&last[2]), "3");
    fixture.stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_from_pages_of_other_sites_are_refused_despite_a_valid_key() {
    let fixture = Fixture::open().await;
    let key = fixture.owner("shop").await;
    let drains = format!("http://{}/api/apps/shop/drains", fixture.stack.addr);
    let client = Client::builder(TokioExecutor::new()).build_http();
    let own = format!("http://{}", fixture.stack.addr);
    for (origin, status) in [("https://evil.example", 403), ("null", 403), (&*own, 201)] {
        let request = Request::post(&drains)
            .header("authorization", format!("Bearer {key}"))
            .header("origin", origin)
            .body(Full::new(Bytes::from_static(
                b"{\"url\": \"https://logs.example.com/\"}",
            )))
            .unwrap();
        let response = tokio::time::timeout(TIMEOUT, client.request(request))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(response.status(), status, "{origin}");
    }
    for (origin, refused) in [("https://evil.example", true), (&*own, false)] {
        let mut request = format!("ws://{}/api/apps/shop/logs", fixture.stack.addr)
            .into_client_request()
            .unwrap();
        let headers = request.headers_mut();
        headers.insert("authorization", format!("Bearer {key}").parse().unwrap());
        headers.insert("origin", origin.parse().unwrap());
        let opened = tokio::time::timeout(TIMEOUT, connect_async(request)).await.unwrap();
        assert_eq!(opened.is_err(), refused, "{origin}");
    }
    fixture.stack.stop().await;
}

#[tokio::test]
async fn cors_headers_are_sent_for_allowed_origins_only() {
    let site = "https://console.example.com";
    let stack = Stack::with_origins(AllowedOrigins::new(&[site.to_owned()]).unwrap().with_host_check()).await;
    let client = Client::builder(TokioExecutor::new()).build_http();
    let request = async |method: Method, origin: &str, host: &str| {
        let request = Request::builder()
            .method(method)
            .uri(format!("http://{}/api/apps/shop/logs?follow=False", stack.addr))
            .header("host", host)
            .header("origin", origin)
            .header("access-control-request-method", "GET")
            .header("access-control-request-headers", "authorization")
            .body(Full::new(Bytes::new()))
            .unwrap();
        tokio::time::timeout(TIMEOUT, client.request(request))
            .await
            .unwrap()
            .unwrap()
    };
    stack.publish([lines(&stream("web-1", Duration::ZERO), 0, 1)]).await;
    for method in [Method::OPTIONS, Method::GET] {
        let answer = request(method, site, "127.0.0.1").await;
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers()["access-control-allow-origin"], site);
    }
    for (origin, host) in [
        ("https://evil.example", "127.0.0.1"),
        ("http://evil.example", "evil.example"),
    ] {
        let answer = request(Method::GET, origin, host).await;
        assert_eq!(answer.status(), StatusCode::FORBIDDEN);
        assert!(answer.headers().get("access-control-allow-origin").is_none());
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_session_opens_one_app_and_ends_with_its_key() {
    let fixture = Fixture::open().await;
    let made = fixture.key("shop", Role::Collaborator, DEFAULT_KEY_LIFETIME).await;
    let answer = fixture
        .request(&Method::POST, "/api/apps/shop/log-sessions", Some(&made.key), "")
        .await;
    assert_eq!(answer.status, StatusCode::CREATED);
    assert!(!answer.body.contains(&made.key));
    let opened: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    let url = opened["data"]["url"].as_str().unwrap().to_owned();
    let mut tail = fixture.stack.get(&format!("{url}&num_lines=2")).await;
    assert_eq!(tail.response.status(), StatusCode::OK);
    assert!(tail.line().await.is_some());
    let of_another = url.replace("/shop/", "/blog/");
    let changed = url.replace("session=", "session=A");
    let drains = url.replace("/logs?", "/drains?");
    for refused in [&of_another, &changed, &drains] {
        let answer = fixture.request(&Method::GET, refused, None, "").await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{refused}");
    }
    fixture.registry.revoke_key(&made.info.id).await.unwrap();
    tail.read_to_end().await;
    let answer = fixture.request(&Method::GET, &url, None, "").await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    fixture.stack.stop().await;
}
