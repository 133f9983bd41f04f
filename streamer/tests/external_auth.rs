//! Authorization by a Kubernetes cluster and by a webhook: every route, revocation and outages.

#![allow(clippy::unwrap_used, reason = "a panic in a helper fails the test")]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests use the operating system directly"
)]

mod support;

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{Json, Router, extract::State, routing::post};
use base64::{Engine, engine::general_purpose::STANDARD};
use http::{Method, StatusCode};
use kubesim::{Cluster, User};
use parking_lot::Mutex;
use registry::{AddressPolicy, DrainUrl, FileRegistry, Registry};
use serde_json::Value;
use streamer::Access;
use support::{
    routes::{ROUTES, RouteAccess},
    *,
};
use tempfile::TempDir;

/// How long decisions are cached.
const CACHE_TIME: Duration = Duration::from_millis(200);

/// The external authorizer of a test.
enum TestAuthorizer {
    Kubernetes(Cluster),
    Webhook(Arc<Platform>, String),
}

/// The webhook: its permissions, the number of calls, and whether it is available.
#[derive(Default)]
struct Platform {
    allowed: Mutex<HashSet<(String, String, String)>>,
    valid_credentials: Mutex<HashSet<String>>,
    calls: AtomicUsize,
    is_down: AtomicBool,
}

async fn decide(State(platform): State<Arc<Platform>>, Json(body): Json<Value>) -> StatusCode {
    platform.calls.fetch_add(1, Ordering::Relaxed);
    if platform.is_down.load(Ordering::Relaxed) {
        return StatusCode::BAD_GATEWAY;
    }
    let text = |name: &str| body[name].as_str().unwrap().to_owned();
    let (app, action, authorization) = (text("app"), text("action"), text("authorization"));
    if !platform.valid_credentials.lock().contains(&authorization) {
        return StatusCode::UNAUTHORIZED;
    }
    match platform.allowed.lock().contains(&(authorization, app, action)) {
        true => StatusCode::OK,
        false => StatusCode::NOT_FOUND,
    }
}

impl TestAuthorizer {
    async fn kubernetes() -> Self {
        let config = kubesim::Config {
            listen: ([127, 0, 0, 1], 0).into(),
            scenario: kubesim::Scenario::default(),
        };
        Self::Kubernetes(kubesim::start(config).await.unwrap())
    }

    async fn webhook() -> Self {
        let platform = Arc::new(Platform::default());
        let app = Router::new()
            .route("/decide", post(decide))
            .with_state(Arc::clone(&platform));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/decide", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self::Webhook(platform, url)
    }

    fn access(&self, registry: Option<Arc<dyn Registry>>) -> Access {
        match self {
            Self::Kubernetes(cluster) => {
                let url = format!("http://{}", cluster.addr()).parse().unwrap();
                let client = kube::Client::try_from(kube::Config::new(url)).unwrap();
                Access::kubernetes(client, registry, CACHE_TIME)
            }
            Self::Webhook(_, url) => Access::webhook(url, registry, CACHE_TIME).unwrap(),
        }
    }

    /// Permits only the tokens of the owners of these apps.
    fn allow(&self, apps: &[&str]) {
        match self {
            Self::Kubernetes(cluster) => cluster.set_users(apps.iter().map(|app| owner(app)).collect()),
            Self::Webhook(platform, _) => {
                *platform.valid_credentials.lock() = apps.iter().map(|app| bearer(app)).collect();
                let permissions = apps
                    .iter()
                    .flat_map(|app| ["read", "drains"].map(|action| (app, action)));
                let permissions = permissions.map(|(app, action)| (bearer(app), (*app).to_owned(), action.to_owned()));
                *platform.allowed.lock() = permissions.collect();
            }
        }
    }

    fn set_down(&self, is_down: bool) {
        match self {
            Self::Kubernetes(cluster) => cluster.set_down(is_down),
            Self::Webhook(platform, _) => platform.is_down.store(is_down, Ordering::Relaxed),
        }
    }
}

fn owner(app: &str) -> User {
    User {
        name: format!("system:serviceaccount:{app}:owner"),
        token: format!("token-of-{app}"),
        reads: Vec::new(),
        rules: Vec::new(),
        manages: vec![app.to_owned()],
    }
}

fn bearer(app: &str) -> String {
    format!("Bearer token-of-{app}")
}

/// A streamer with an external authorizer, and an app with three lines and a drain.
struct Fixture {
    stack: Stack,
    authorizer: TestAuthorizer,
    registry: Arc<FileRegistry>,
    drain: u32,
    _dir: TempDir,
}

impl Fixture {
    async fn open(authorizer: TestAuthorizer) -> Self {
        let dir = TempDir::new().unwrap();
        let registry = Arc::new(FileRegistry::open(dir.path().join("registry.json")).await.unwrap());
        let url = DrainUrl::parse("https://u:hunter2@example.com/logs", &AddressPolicy::default()).unwrap();
        let drain = registry.add_drain("shop", &url, 5).await.unwrap().id;
        authorizer.allow(&["shop", "blog"]);
        let stack = Stack::with_access(
            authorizer.access(Some(Arc::clone(&registry) as _)),
            Arc::clone(&registry) as _,
        )
        .await;
        stack.publish([lines(&stream("web-1", Duration::ZERO), 0, 3)]).await;
        Self {
            stack,
            authorizer,
            registry,
            drain,
            _dir: dir,
        }
    }

    async fn get(&self, path: &str, authorization: Option<&str>) -> support::routes::Answer {
        self.stack.request(&Method::GET, path, authorization, "").await
    }

    /// Opens a tail of the app `shop` and reads its history.
    async fn tail(&self) -> Reading {
        let mut tail = self
            .stack
            .get_with("/api/apps/shop/logs", &[("authorization", &bearer("shop"))])
            .await;
        assert_eq!(tail.response.status(), StatusCode::OK);
        tail.lines(3).await;
        tail
    }

    /// Waits until new requests get this status.
    async fn until_status(&self, status: StatusCode) {
        let reached = async {
            while self
                .get("/api/apps/shop/logs?follow=False", Some(&bearer("shop")))
                .await
                .status
                != status
            {}
        };
        tokio::time::timeout(TIMEOUT, reached)
            .await
            .expect("the status in time");
    }
}

/// Defines each test for both authorizers.
macro_rules! for_both_authorizers {
    ($($test:ident,)*) => {
        mod kubernetes {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                super::$test(super::Fixture::open(super::TestAuthorizer::kubernetes().await).await).await;
            })*
        }

        mod webhook {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                super::$test(super::Fixture::open(super::TestAuthorizer::webhook().await).await).await;
            })*
        }
    };
}

for_both_authorizers! {
    permitted_clients_read_and_manage_and_others_get_app_not_found,
    a_revoked_permission_ends_its_tails_and_no_others,
    during_an_outage_new_requests_are_refused_and_open_tails_continue,
    a_log_session_has_the_permission_of_its_creator,
}

async fn permitted_clients_read_and_manage_and_others_get_app_not_found(fixture: Fixture) {
    let log = fixture
        .get("/api/apps/shop/logs?follow=False", Some(&bearer("shop")))
        .await;
    assert_eq!((log.status, log.body.lines().count()), (StatusCode::OK, 3));
    let drains = fixture.get("/api/apps/shop/drains", Some(&bearer("shop"))).await;
    assert_eq!(drains.status, StatusCode::OK);
    let before = Arc::clone(&fixture.registry.drains().borrow());
    for (method, path, row) in ROUTES {
        let RouteAccess::App(body) = row else { continue };
        let (method, body) = (
            method.parse().unwrap(),
            body.replace("DRAIN", &fixture.drain.to_string()),
        );
        for app in ["shop", "none-such", "no%20name"] {
            let path = path.replace("{app}", app).replace("{id}", &fixture.drain.to_string());
            let answer = fixture
                .stack
                .request(&method, &path, Some(&bearer("blog")), &body)
                .await;
            assert_eq!(answer.status, StatusCode::NOT_FOUND, "{method} {path}");
            answer.assert_error("app not found");
            for unknown in [None, Some("Bearer invalid"), Some("Basic %%")] {
                let answer = fixture.stack.request(&method, &path, unknown, &body).await;
                let hidden = app == "no%20name" && answer.status == StatusCode::NOT_FOUND;
                assert!(
                    hidden || answer.status == StatusCode::UNAUTHORIZED,
                    "{method} {path}: {answer:?}"
                );
            }
        }
    }
    assert_eq!(*fixture.registry.drains().borrow(), before, "the drains are unchanged");
    fixture.stack.stop().await;
}

async fn a_revoked_permission_ends_its_tails_and_no_others(fixture: Fixture) {
    let mut tail = fixture.tail().await;
    let mut other = fixture
        .stack
        .get_with("/api/apps/blog/logs", &[("authorization", &bearer("blog"))])
        .await;
    let is_readable = other.response.status() == StatusCode::OK;
    fixture.authorizer.allow(&["blog"]);
    tail.read_to_end().await;
    fixture.until_status(StatusCode::UNAUTHORIZED).await;
    // The webhook's decision implies that the app exists although it has no lines yet.
    assert_eq!(is_readable, matches!(fixture.authorizer, TestAuthorizer::Webhook(..)));
    if is_readable {
        let metadata = Arc::new(bus::StreamMetadata {
            app: "blog".parse().unwrap(),
            ..bus::StreamMetadata::clone(&stream("web-1", Duration::ZERO))
        });
        fixture.stack.publish([lines(&metadata, 0, 1)]).await;
        assert_eq!(text_of(&other.line().await.unwrap()), "0");
    }
    fixture.stack.stop().await;
}

async fn during_an_outage_new_requests_are_refused_and_open_tails_continue(fixture: Fixture) {
    let mut tail = fixture.tail().await;
    fixture.authorizer.set_down(true);
    fixture.until_status(StatusCode::SERVICE_UNAVAILABLE).await;
    fixture
        .stack
        .publish([lines(&stream("web-1", Duration::ZERO), 3, 4)])
        .await;
    assert_eq!(text_of(&tail.line().await.unwrap()), "3");
    fixture.authorizer.set_down(false);
    fixture.until_status(StatusCode::OK).await;
    fixture
        .stack
        .publish([lines(&stream("web-1", Duration::ZERO), 4, 5)])
        .await;
    assert_eq!(text_of(&tail.line().await.unwrap()), "4");
    fixture.stack.stop().await;
}

async fn a_log_session_has_the_permission_of_its_creator(fixture: Fixture) {
    let created = fixture
        .stack
        .request(&Method::POST, "/api/apps/shop/log-sessions", Some(&bearer("shop")), "")
        .await;
    assert_eq!(created.status, StatusCode::CREATED);
    assert!(!created.body.contains("token-of-shop"));
    let session: Value = serde_json::from_str(&created.body).unwrap();
    let url = session["data"]["url"].as_str().unwrap();
    let mut tail = fixture.stack.get(url).await;
    assert_eq!(tail.response.status(), StatusCode::OK);
    tail.lines(3).await;
    let of_another = url.replace("/shop/", "/blog/");
    assert_eq!(fixture.get(&of_another, None).await.status, StatusCode::UNAUTHORIZED);
    fixture.authorizer.allow(&["blog"]);
    tail.read_to_end().await;
    fixture.stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_requests_with_the_same_credentials_share_a_call() {
    let fixture = Fixture::open(TestAuthorizer::webhook().await).await;
    let requests = (0..50).map(|_| fixture.tail());
    let tails = futures::future::join_all(requests).await;
    let TestAuthorizer::Webhook(platform, _) = &fixture.authorizer else {
        unreachable!()
    };
    let calls = platform.calls.load(Ordering::Relaxed);
    assert!(calls < tails.len(), "{calls} calls for {} tails", tails.len());
    fixture.stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_accepted_as_password_and_the_account_is_the_cluster_user() {
    let fixture = Fixture::open(TestAuthorizer::kubernetes().await).await;
    let basic = format!("Basic {}", STANDARD.encode("me@example.com:token-of-shop"));
    let log = fixture.get("/api/apps/shop/logs?follow=False", Some(&basic)).await;
    assert_eq!(log.status, StatusCode::OK);
    let account = fixture.get("/api/users", Some(&basic)).await;
    let account: Value = serde_json::from_str(&account.body).unwrap();
    assert_eq!(account["data"]["email"], "system:serviceaccount:shop:owner");
    fixture.stack.stop().await;
    let fixture = Fixture::open(TestAuthorizer::webhook().await).await;
    let account = fixture.get("/api/users", Some(&basic)).await;
    assert_eq!(account.status, StatusCode::NOT_FOUND);
    account.assert_error("account details are not available");
    fixture.stack.stop().await;
}

#[test]
fn an_invalid_webhook_url_is_refused() {
    for url in [
        "",
        "api.example.com",
        "ftp://api.example.com",
        "https://u:hunter2@api.example.com/",
        "https://",
    ] {
        let error = Access::webhook(url, None, CACHE_TIME).err().expect(url).to_string();
        assert!(error.contains("give a URL") && !error.contains("hunter2"), "{error}");
    }
}
