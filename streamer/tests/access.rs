//! Who may do what: every route, by every method, for whoever has another app's key, or none.

#![allow(clippy::unwrap_used, reason = "a helper's panic fails its test")]

mod support;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use registry::{AddressPolicy, DEFAULT_KEY_LIFETIME, DrainUrl, FileRegistry, Grant, NewKey, Registry, Role};
use streamer::{Access, Sites};
use support::{
    routes::{Answer, ROWS, Row},
    *,
};
use tempfile::TempDir;
use tokio_tungstenite::{connect_async, tungstenite::client::IntoClientRequest};

const DRAIN: &str = "https://u:hunter2@example.com/logs";

/// A streamer that asks for keys, with an app that has a line and a drain.
struct House {
    stack: Stack,
    registry: Arc<FileRegistry>,
    drain: u32,
    _dir: TempDir,
}

impl House {
    async fn open() -> Self {
        let dir = TempDir::new().unwrap();
        let opened = FileRegistry::open(dir.path().join("registry.json")).await.unwrap();
        let registry = Arc::new(opened);
        let stack = Stack::start_asking(Access::keys(Arc::clone(&registry) as Arc<dyn Registry>)).await;
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
        let made = self
            .registry
            .add_key("me@example.com", vec![Grant { app, role }], lifetime);
        made.await.unwrap()
    }

    async fn owner(&self, app: &str) -> String {
        self.key(app, Role::Owner, DEFAULT_KEY_LIFETIME).await.key
    }

    async fn ask(&self, method: &Method, path: &str, key: Option<&str>, body: &str) -> Answer {
        let authorization = key.map(|key| format!("Bearer {key}"));
        self.stack.ask(method, path, authorization.as_deref(), body).await
    }
}

#[test]
fn every_route_has_a_row() {
    let described = serde_json::to_value(streamer::openapi()).unwrap();
    let mut routes = BTreeSet::new();
    for (path, methods) in described["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            routes.insert((method.to_uppercase(), path.clone()));
        }
    }
    let rows = ROWS.map(|(method, path, _)| (method.to_owned(), path.to_owned()));
    assert_eq!(routes, BTreeSet::from(rows));
}

#[tokio::test]
async fn whatever_is_an_apps_is_hidden_from_another_apps_key_and_refused_without_one() {
    let house = House::open().await;
    let other = house.owner("blog").await;
    let before = Arc::clone(&house.registry.drains().borrow());
    for (method, path, row) in ROWS {
        let Row::OfApp(body) = row else { continue };
        let body = body.replace("DRAIN", &house.drain.to_string());
        // The methods that are there, and those that are not.
        let all = [
            Method::GET,
            Method::POST,
            Method::PUT,
            Method::PATCH,
            Method::DELETE,
            Method::HEAD,
        ];
        for asked in &all {
            let there = path.replace("{app}", "shop").replace("{id}", &house.drain.to_string());
            let answer = house.ask(asked, &there, Some(&other), &body).await;
            let nowhere = house
                .ask(
                    asked,
                    &path
                        .replace("{app}", "none-such")
                        .replace("{id}", &house.drain.to_string()),
                    Some(&other),
                    &body,
                )
                .await;
            assert_eq!(
                (answer.status, &answer.body),
                (nowhere.status, &nowhere.body),
                "{asked} {path}"
            );
            assert!(answer.status.is_client_error(), "{asked} {path}: {answer:?}");
            if asked.as_str() == method {
                assert_eq!(answer.status, StatusCode::NOT_FOUND);
                answer.says("app not found");
                let answer = house.ask(asked, &there, None, &body).await;
                assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
                answer.says("no access");
                let challenge = answer.headers["www-authenticate"].to_str().unwrap();
                assert!(challenge.starts_with("Basic realm="), "{challenge}");
            }
        }
    }
    assert_eq!(*house.registry.drains().borrow(), before, "nothing has changed");
    house.stack.stop().await;
}

#[tokio::test]
async fn a_websocket_is_refused_before_the_upgrade() {
    let house = House::open().await;
    let other = house.owner("blog").await;
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
        let answer = house.stack.get_with("/api/apps/shop/logs", &headers).await;
        assert_eq!(answer.response.status(), status);
    }
    house.stack.stop().await;
}

#[tokio::test]
async fn an_owner_lists_adds_and_removes_drains_as_the_client_asks_for_it() {
    let house = House::open().await;
    let key = house.owner("shop").await;
    let path = "/api/apps/shop/drains";
    let list = async || {
        let answer = house.ask(&Method::GET, path, Some(&key), "").await;
        assert_eq!(answer.status, StatusCode::OK);
        let listed: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
        listed["data"].as_array().unwrap().clone()
    };
    let first = list().await;
    assert_eq!(first[0]["url"], DRAIN);
    assert_eq!(first[0]["id"], house.drain);
    assert!(first[0]["token"].as_str().unwrap().starts_with("d."));
    let add = async |url: &str| {
        let body = serde_json::json!({ "url": url }).to_string();
        house.ask(&Method::POST, path, Some(&key), &body).await
    };
    assert_eq!(
        add("syslog+tls://logs.example.com:6514").await.status,
        StatusCode::CREATED
    );
    for (url, word) in [
        (DRAIN, "already"),
        ("syslog://127.0.0.1:514", "private network"),
        ("https://hunter2@localhost/", "this machine"),
        ("gopher://hunter2.example.com", "scheme"),
    ] {
        let answer = add(url).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{url}");
        answer.says(word);
    }
    for n in 0..3 {
        assert_eq!(
            add(&format!("https://example.com/{n}")).await.status,
            StatusCode::CREATED
        );
    }
    add("https://example.com/6").await.says("5 drains already");
    for id in [house.drain.to_string(), format!("\"{}\"", list().await[0]["id"])] {
        let body = format!("{{\"drain_id\": {id}}}");
        let answer = house.ask(&Method::DELETE, path, Some(&key), &body).await;
        let known = answer.status == StatusCode::OK;
        assert!(known || answer.status == StatusCode::NOT_FOUND, "{answer:?}");
    }
    assert!(list().await.iter().all(|drain| drain["id"] != house.drain));
    for body in ["", "{}", "nonsense", r#"{"drain_id": []}"#] {
        let answer = house.ask(&Method::DELETE, path, Some(&key), body).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{body}");
    }
    let answer = house
        .ask(&Method::DELETE, path, Some(&key), r#"{"drain_id": "x"}"#)
        .await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    let answer = house.ask(&Method::POST, path, Some(&key), &"x".repeat(17 * 1024)).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    house.stack.stop().await;
}

#[tokio::test]
async fn a_collaborator_reads_the_log_and_leaves_the_drains_alone() {
    let house = House::open().await;
    let key = house.key("shop", Role::Collaborator, DEFAULT_KEY_LIFETIME).await.key;
    let answer = house
        .ask(&Method::GET, "/api/apps/shop/logs?follow=False", Some(&key), "")
        .await;
    assert_eq!((answer.status, answer.body.lines().count()), (StatusCode::OK, 3));
    let answer = house.ask(&Method::GET, "/api/apps/shop/drains", Some(&key), "").await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    answer.says("may read this app's log");
    house.stack.stop().await;
}

#[tokio::test]
async fn an_account_is_the_keys_own_and_a_login_is_told_how_it_is_done_here() {
    let house = House::open().await;
    let made = house.key("shop", Role::Owner, DEFAULT_KEY_LIFETIME).await;
    let answer = house.ask(&Method::GET, "/api/users", Some(&made.key), "").await;
    let account: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(account["data"]["email"], "me@example.com");
    assert_eq!(
        account["data"]["apps"][0],
        serde_json::json!({"name": "shop", "role": "owner"})
    );
    assert!(!answer.body.contains(&made.key));
    assert_eq!(
        house.ask(&Method::GET, "/api/users", None, "").await.status,
        StatusCode::UNAUTHORIZED
    );
    let answer = house.ask(&Method::GET, "/api/login", None, "").await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    answer.says("no passwords here");
    house.stack.stop().await;
}

#[tokio::test]
async fn an_app_that_only_a_key_names_is_an_empty_stream_that_waits() {
    let house = House::open().await;
    let key = house.owner("fresh").await;
    let bearer = format!("Bearer {key}");
    let tail = house
        .stack
        .get_with("/api/apps/fresh/logs", &[("authorization", &bearer)])
        .await;
    assert_eq!(tail.response.status(), StatusCode::OK);
    drop(tail);
    house.stack.stop().await;
}

#[tokio::test]
async fn a_key_that_is_revoked_or_over_ends_its_tails_properly_and_no_others() {
    let house = House::open().await;
    let (made, stays) = (
        house.key("shop", Role::Owner, DEFAULT_KEY_LIFETIME).await,
        house.owner("shop").await,
    );
    let short = house.key("shop", Role::Owner, Duration::from_secs(2)).await.key;
    let open = async |key: &str, accept: &str| {
        let bearer = format!("Bearer {key}");
        let headers = [("authorization", bearer.as_str()), ("accept", accept)];
        let mut tail = house.stack.get_with("/api/apps/shop/logs", &headers).await;
        assert_eq!(tail.response.status(), StatusCode::OK);
        tail.line().await.expect("history");
        tail
    };
    let mut over = open(&short, "text/plain").await;
    over.read_to_end().await;
    let mut revoked = [
        open(&made.key, "text/plain").await,
        open(&made.key, "text/event-stream").await,
    ];
    let mut stayed = open(&stays, "text/plain").await;
    house.registry.revoke_key(&made.info.id).await.unwrap();
    for tail in &mut revoked {
        tail.read_to_end().await;
    }
    let answer = house
        .ask(&Method::GET, "/api/apps/shop/logs", Some(&made.key), "")
        .await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    house
        .stack
        .publish([lines(&stream("web-1", Duration::ZERO), 3, 4)])
        .await;
    let last = stayed.lines(3).await;
    assert_eq!(said(&last[2]), "3");
    house.stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_another_site_reads_and_changes_nothing_though_the_browser_lends_it_the_key() {
    let house = House::open().await;
    let key = house.owner("shop").await;
    let drains = format!("http://{}/api/apps/shop/drains", house.stack.addr);
    let client = Client::builder(TokioExecutor::new()).build_http();
    let own = format!("http://{}", house.stack.addr);
    for (origin, status) in [("https://evil.example", 403), ("null", 403), (&*own, 201)] {
        let request = Request::post(&drains)
            .header("authorization", format!("Bearer {key}"))
            .header("origin", origin)
            .body(Full::new(Bytes::from_static(
                b"{\"url\": \"https://logs.example.com/\"}",
            )))
            .unwrap();
        let answered = tokio::time::timeout(BOUND, client.request(request))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(answered.status(), status, "{origin}");
    }
    for (origin, refused) in [("https://evil.example", true), (&*own, false)] {
        let mut request = format!("ws://{}/api/apps/shop/logs", house.stack.addr)
            .into_client_request()
            .unwrap();
        let headers = request.headers_mut();
        headers.insert("authorization", format!("Bearer {key}").parse().unwrap());
        headers.insert("origin", origin.parse().unwrap());
        let opened = tokio::time::timeout(BOUND, connect_async(request)).await.unwrap();
        assert_eq!(opened.is_err(), refused, "{origin}");
    }
    house.stack.stop().await;
}

#[tokio::test]
async fn a_browser_is_told_that_pages_of_an_allowed_site_may_read_and_of_no_other() {
    let site = "https://console.example.com";
    let stack = Stack::open_to(Sites::allowing(&[site.to_owned()]).unwrap().by_address()).await;
    let client = Client::builder(TokioExecutor::new()).build_http();
    let ask = async |method: Method, origin: &str, host: &str| {
        let request = Request::builder()
            .method(method)
            .uri(format!("http://{}/api/apps/shop/logs?follow=False", stack.addr))
            .header("host", host)
            .header("origin", origin)
            .header("access-control-request-method", "GET")
            .header("access-control-request-headers", "authorization")
            .body(Full::new(Bytes::new()))
            .unwrap();
        tokio::time::timeout(BOUND, client.request(request))
            .await
            .unwrap()
            .unwrap()
    };
    stack.publish([lines(&stream("web-1", Duration::ZERO), 0, 1)]).await;
    for method in [Method::OPTIONS, Method::GET] {
        let answer = ask(method, site, "127.0.0.1").await;
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers()["access-control-allow-origin"], site);
    }
    for (origin, host) in [
        ("https://evil.example", "127.0.0.1"),
        ("http://evil.example", "evil.example"),
    ] {
        let answer = ask(Method::GET, origin, host).await;
        assert_eq!(answer.status(), StatusCode::FORBIDDEN);
        assert!(answer.headers().get("access-control-allow-origin").is_none());
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_session_opens_one_app_for_who_has_its_link_and_ends_with_its_key() {
    let house = House::open().await;
    let made = house.key("shop", Role::Collaborator, DEFAULT_KEY_LIFETIME).await;
    let answer = house
        .ask(&Method::POST, "/api/apps/shop/log-sessions", Some(&made.key), "")
        .await;
    assert_eq!(answer.status, StatusCode::CREATED);
    assert!(!answer.body.contains(&made.key));
    let opened: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    let url = opened["data"]["url"].as_str().unwrap().to_owned();
    let mut tail = house.stack.get(&format!("{url}&num_lines=2")).await;
    assert_eq!(tail.response.status(), StatusCode::OK);
    assert!(tail.line().await.is_some());
    let of_another = url.replace("/shop/", "/blog/");
    let changed = url.replace("session=", "session=A");
    let elsewhere = url.replace("/logs?", "/drains?");
    for refused in [&of_another, &changed, &elsewhere] {
        let answer = house.ask(&Method::GET, refused, None, "").await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{refused}");
    }
    house.registry.revoke_key(&made.info.id).await.unwrap();
    tail.read_to_end().await;
    let answer = house.ask(&Method::GET, &url, None, "").await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    house.stack.stop().await;
}
