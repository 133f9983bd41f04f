//! Others decide who may read: a cluster's API, or the platform's own. What they say holds for every route, and as long as they say it.

#![allow(clippy::unwrap_used, reason = "a helper's panic fails its test")]

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
    routes::{ROWS, Row},
    *,
};
use tempfile::TempDir;

/// How long a decision is good for.
const REMEMBERED: Duration = Duration::from_millis(200);

/// Who decides, in a test.
enum Decider {
    Kubernetes(Cluster),
    Webhook(Arc<Platform>, String),
}

/// The platform's API: who may what, how often it was asked, and whether it answers.
#[derive(Default)]
struct Platform {
    allowed: Mutex<HashSet<(String, String, String)>>,
    known: Mutex<HashSet<String>>,
    asked: AtomicUsize,
    broken: AtomicBool,
}

async fn decide(State(platform): State<Arc<Platform>>, Json(question): Json<Value>) -> StatusCode {
    platform.asked.fetch_add(1, Ordering::Relaxed);
    if platform.broken.load(Ordering::Relaxed) {
        return StatusCode::BAD_GATEWAY;
    }
    let text = |name: &str| question[name].as_str().unwrap().to_owned();
    let (app, action, authorization) = (text("app"), text("action"), text("authorization"));
    if !platform.known.lock().contains(&authorization) {
        return StatusCode::UNAUTHORIZED;
    }
    match platform.allowed.lock().contains(&(authorization, app, action)) {
        true => StatusCode::OK,
        false => StatusCode::NOT_FOUND,
    }
}

impl Decider {
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
                Access::kubernetes(client, registry, REMEMBERED)
            }
            Self::Webhook(_, url) => Access::webhook(url, registry, REMEMBERED).unwrap(),
        }
    }

    /// Lets the tokens of these apps' owners in, and no others.
    fn allow(&self, apps: &[&str]) {
        match self {
            Self::Kubernetes(cluster) => cluster.set_users(apps.iter().map(|app| owner(app)).collect()),
            Self::Webhook(platform, _) => {
                *platform.known.lock() = apps.iter().map(|app| bearer(app)).collect();
                let both = apps
                    .iter()
                    .flat_map(|app| ["read", "drains"].map(|action| (app, action)));
                let both = both.map(|(app, action)| (bearer(app), (*app).to_owned(), action.to_owned()));
                *platform.allowed.lock() = both.collect();
            }
        }
    }

    fn set_away(&self, away: bool) {
        match self {
            Self::Kubernetes(cluster) => cluster.set_down(away),
            Self::Webhook(platform, _) => platform.broken.store(away, Ordering::Relaxed),
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

/// A streamer that asks elsewhere, with an app that has three lines and a drain.
struct House {
    stack: Stack,
    decider: Decider,
    registry: Arc<FileRegistry>,
    drain: u32,
    _dir: TempDir,
}

impl House {
    async fn open(decider: Decider) -> Self {
        let dir = TempDir::new().unwrap();
        let registry = Arc::new(FileRegistry::open(dir.path().join("registry.json")).await.unwrap());
        let url = DrainUrl::parse("https://u:hunter2@example.com/logs", &AddressPolicy::default()).unwrap();
        let drain = registry.add_drain("shop", &url, 5).await.unwrap().id;
        decider.allow(&["shop", "blog"]);
        let stack = Stack::start_asking(decider.access(Some(Arc::clone(&registry) as _))).await;
        stack.publish([lines(&stream("web-1", Duration::ZERO), 0, 3)]).await;
        Self {
            stack,
            decider,
            registry,
            drain,
            _dir: dir,
        }
    }

    async fn get(&self, path: &str, authorization: Option<&str>) -> support::routes::Answer {
        self.stack.ask(&Method::GET, path, authorization, "").await
    }

    /// A tail of the shop that has had its history.
    async fn tail(&self) -> Reading {
        let mut tail = self
            .stack
            .get_with("/api/apps/shop/logs", &[("authorization", &bearer("shop"))])
            .await;
        assert_eq!(tail.response.status(), StatusCode::OK);
        tail.lines(3).await;
        tail
    }

    /// Waits until a new request is answered so.
    async fn until_answered(&self, status: StatusCode) {
        let answered = async {
            while self
                .get("/api/apps/shop/logs?follow=False", Some(&bearer("shop")))
                .await
                .status
                != status
            {}
        };
        tokio::time::timeout(BOUND, answered)
            .await
            .expect("answered so in time");
    }
}

/// A test of both who decide.
macro_rules! promises {
    ($($promise:ident,)*) => {
        mod kubernetes {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $promise() {
                super::$promise(super::House::open(super::Decider::kubernetes().await).await).await;
            })*
        }

        mod webhook {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $promise() {
                super::$promise(super::House::open(super::Decider::webhook().await).await).await;
            })*
        }
    };
}

promises! {
    who_may_reads_and_manages_and_who_may_not_sees_no_such_app,
    a_right_that_is_taken_away_ends_its_tails_and_no_others,
    a_decider_that_is_away_lets_nobody_new_in_and_ends_nothing,
    a_log_session_is_as_good_as_what_it_was_opened_with,
}

async fn who_may_reads_and_manages_and_who_may_not_sees_no_such_app(house: House) {
    let log = house
        .get("/api/apps/shop/logs?follow=False", Some(&bearer("shop")))
        .await;
    assert_eq!((log.status, log.body.lines().count()), (StatusCode::OK, 3));
    let drains = house.get("/api/apps/shop/drains", Some(&bearer("shop"))).await;
    assert_eq!(drains.status, StatusCode::OK);
    let before = Arc::clone(&house.registry.drains().borrow());
    for (method, path, row) in ROWS {
        let Row::OfApp(body) = row else { continue };
        let (method, body) = (method.parse().unwrap(), body.replace("DRAIN", &house.drain.to_string()));
        for app in ["shop", "none-such", "no%20name"] {
            let path = path.replace("{app}", app).replace("{id}", &house.drain.to_string());
            let answer = house.stack.ask(&method, &path, Some(&bearer("blog")), &body).await;
            assert_eq!(answer.status, StatusCode::NOT_FOUND, "{method} {path}");
            answer.says("app not found");
            for unknown in [None, Some("Bearer nobody"), Some("Basic %%")] {
                let answer = house.stack.ask(&method, &path, unknown, &body).await;
                let hidden = app == "no%20name" && answer.status == StatusCode::NOT_FOUND;
                assert!(
                    hidden || answer.status == StatusCode::UNAUTHORIZED,
                    "{method} {path}: {answer:?}"
                );
            }
        }
    }
    assert_eq!(*house.registry.drains().borrow(), before, "nothing has changed");
    house.stack.stop().await;
}

async fn a_right_that_is_taken_away_ends_its_tails_and_no_others(house: House) {
    let mut tail = house.tail().await;
    let mut other = house
        .stack
        .get_with("/api/apps/blog/logs", &[("authorization", &bearer("blog"))])
        .await;
    let reads = other.response.status() == StatusCode::OK;
    house.decider.allow(&["blog"]);
    tail.read_to_end().await;
    house.until_answered(StatusCode::UNAUTHORIZED).await;
    // In the webhook's case its word is enough for an app that has not spoken yet.
    assert_eq!(reads, matches!(house.decider, Decider::Webhook(..)));
    if reads {
        let metadata = Arc::new(bus::StreamMetadata {
            app: "blog".parse().unwrap(),
            ..bus::StreamMetadata::clone(&stream("web-1", Duration::ZERO))
        });
        house.stack.publish([lines(&metadata, 0, 1)]).await;
        assert_eq!(said(&other.line().await.unwrap()), "0");
    }
    house.stack.stop().await;
}

async fn a_decider_that_is_away_lets_nobody_new_in_and_ends_nothing(house: House) {
    let mut tail = house.tail().await;
    house.decider.set_away(true);
    house.until_answered(StatusCode::SERVICE_UNAVAILABLE).await;
    house
        .stack
        .publish([lines(&stream("web-1", Duration::ZERO), 3, 4)])
        .await;
    assert_eq!(said(&tail.line().await.unwrap()), "3");
    house.decider.set_away(false);
    house.until_answered(StatusCode::OK).await;
    house
        .stack
        .publish([lines(&stream("web-1", Duration::ZERO), 4, 5)])
        .await;
    assert_eq!(said(&tail.line().await.unwrap()), "4");
    house.stack.stop().await;
}

async fn a_log_session_is_as_good_as_what_it_was_opened_with(house: House) {
    let asked = house
        .stack
        .ask(&Method::POST, "/api/apps/shop/log-sessions", Some(&bearer("shop")), "")
        .await;
    assert_eq!(asked.status, StatusCode::CREATED);
    assert!(!asked.body.contains("token-of-shop"));
    let opened: Value = serde_json::from_str(&asked.body).unwrap();
    let url = opened["data"]["url"].as_str().unwrap();
    let mut tail = house.stack.get(url).await;
    assert_eq!(tail.response.status(), StatusCode::OK);
    tail.lines(3).await;
    let of_another = url.replace("/shop/", "/blog/");
    assert_eq!(house.get(&of_another, None).await.status, StatusCode::UNAUTHORIZED);
    house.decider.allow(&["blog"]);
    tail.read_to_end().await;
    house.stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_who_ask_the_same_at_once_are_one_question() {
    let house = House::open(Decider::webhook().await).await;
    let asks = (0..50).map(|_| house.tail());
    let tails = futures::future::join_all(asks).await;
    let Decider::Webhook(platform, _) = &house.decider else {
        unreachable!()
    };
    let asked = platform.asked.load(Ordering::Relaxed);
    assert!(asked < tails.len(), "{asked} questions of {} tails", tails.len());
    house.stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_a_password_too_and_the_account_is_what_the_cluster_calls_it() {
    let house = House::open(Decider::kubernetes().await).await;
    let basic = format!("Basic {}", STANDARD.encode("me@example.com:token-of-shop"));
    let log = house.get("/api/apps/shop/logs?follow=False", Some(&basic)).await;
    assert_eq!(log.status, StatusCode::OK);
    let account = house.get("/api/users", Some(&basic)).await;
    let account: Value = serde_json::from_str(&account.body).unwrap();
    assert_eq!(account["data"]["email"], "system:serviceaccount:shop:owner");
    house.stack.stop().await;
    let house = House::open(Decider::webhook().await).await;
    let account = house.get("/api/users", Some(&basic)).await;
    assert_eq!(account.status, StatusCode::NOT_FOUND);
    account.says("the platform's API decides");
    house.stack.stop().await;
}

#[test]
fn a_webhook_that_cannot_be_asked_is_refused_at_once() {
    for url in [
        "",
        "api.example.com",
        "ftp://api.example.com",
        "https://u:hunter2@api.example.com/",
        "https://",
    ] {
        let error = Access::webhook(url, None, REMEMBERED).err().expect(url).to_string();
        assert!(error.contains("give a URL") && !error.contains("hunter2"), "{error}");
    }
}
