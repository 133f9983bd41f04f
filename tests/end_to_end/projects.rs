//! Several Pub/Sub projects: a full project is skipped, and readers find every app.

#![allow(clippy::unwrap_used, reason = "a helper's panic fails its test")]

use std::{convert::Infallible, net::SocketAddr};

use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    service::service_fn,
};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioIo},
};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};

use crate::{emulator::Emulator, support::*, up::Cluster};

const APPS: usize = 6;

/// Error of a project that has reached its limit of topics.
const FULL: &str = r#"{"error": {"code": 429, "status": "RESOURCE_EXHAUSTED",
    "message": "Your project has exceeded a limit: (type=\"topics-per-project\", current=10000, maximum=10000)."}}"#;

/// Starts a proxy for the emulator that rejects new topics of apps in the project `full`.
pub async fn proxy_with_full_project(emulator: &Emulator) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (addr, host) = (listener.local_addr().unwrap(), emulator.host().to_owned());
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let host = host.clone();
            tokio::spawn(async move {
                let mut first = [0; 3];
                if client.peek(&mut first).await.is_ok() && first == *b"PRI" {
                    // gRPC is forwarded as it is.
                    let mut server = TcpStream::connect(host).await.unwrap();
                    let _ = copy_bidirectional(&mut client, &mut server).await;
                    return;
                }
                let answer = service_fn(|request| answer(request, host.clone()));
                let served = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(client), answer);
                let _ = served.await;
            });
        }
    });
    addr
}

async fn answer(request: Request<Incoming>, host: String) -> Result<Response<Forwarded>, Infallible> {
    let path = request.uri().path();
    if request.method() == Method::PUT && path.starts_with("/v1/projects/full/topics/tributary-app-") {
        let mut full = Response::new(Full::from(FULL).map_err(|never| match never {}).boxed());
        *full.status_mut() = StatusCode::TOO_MANY_REQUESTS;
        return Ok(full);
    }
    Ok(forwarded(request, &host).await)
}

/// A forwarded body.
pub type Forwarded = BoxBody<Bytes, hyper::Error>;

/// Forwards a request.
pub async fn forwarded(request: Request<Incoming>, host: &str) -> Response<Forwarded> {
    let (mut head, body) = request.into_parts();
    let path = head.uri.path_and_query().unwrap().clone();
    head.uri = format!("http://{host}{path}").parse().unwrap();
    let client = Client::builder(TokioExecutor::new()).build_http();
    let answer = client.request(Request::from_parts(head, body)).await.unwrap();
    answer.map(BodyExt::boxed)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_project_is_skipped_and_every_app_is_read() {
    let Some(emulator) = Emulator::start().await else {
        return;
    };
    let host = proxy_with_full_project(&emulator).await.to_string();
    let pods: String = (0..APPS)
        .map(|n| {
            format!(
                "[[pods]]\nnamespace = \"app-{n}\"\nname = \"web\"\n[[pods.containers]]\nname = \"web\"\nlines = 50\nrate = 100\ntext = \"line {{seq}}\"\nrestart = \"Never\"\n"
            )
        })
        .collect();
    let cluster = Cluster::start(&format!("seed = 1\n{pods}")).await;
    let data_dir = cluster.dir.path().join("collector").display().to_string();
    let env = [("KUBECONFIG", &*cluster.kubeconfig), ("PUBSUB_EMULATOR_HOST", &*host)];
    let collector = [
        "collector",
        "--bus",
        "pubsub:full,roomy",
        "--admin-listen",
        "127.0.0.1:0",
        "--data-dir",
        &data_dir,
    ];
    let collector = Tributary::start(&collector, &env).await;
    // The order of the projects has no meaning.
    let streamer = [
        "streamer",
        "--bus",
        "pubsub:roomy,full",
        "--listen",
        "127.0.0.1:0",
        "--admin-listen",
        "127.0.0.1:0",
    ];
    let streamer = Tributary::start(&streamer, &env).await;
    for n in 0..APPS {
        let path = format!("/api/apps/app-{n}/logs?num_lines=1000");
        let mut tail = bounded("the app", async {
            loop {
                let tail = streamer.get(&path).await;
                if tail.status() == 200 {
                    return tail;
                }
            }
        })
        .await;
        for seq in 0..50 {
            let line = tail.line().await.unwrap();
            assert!(parse_line(&line).text.starts_with(&format!("line {seq}")), "{line}");
        }
    }
    let list = async |project: &str| {
        let listed = run(&["apps", "list", "--bus", project], &[("PUBSUB_EMULATOR_HOST", &host)]).await;
        assert!(listed.status.success());
        String::from_utf8(listed.stdout).unwrap().lines().count()
    };
    assert_eq!((list("pubsub:full").await, list("pubsub:roomy").await), (0, APPS));
    assert_eq!(list("pubsub:full,roomy").await, APPS);
    collector.terminate().await;
    streamer.terminate().await;
    cluster.stop().await;
    emulator.stop().await;
}

#[tokio::test]
async fn invalid_project_lists_are_rejected() {
    for (bus, message) in [
        ("pubsub:one,", "a project id is empty"),
        ("pubsub:one,one", "given twice"),
        ("pubsub:", "use pubsub:PROJECT"),
    ] {
        let rejected = run(&["streamer", "--bus", bus, "--listen", "127.0.0.1:0"], &[]).await;
        let output = String::from_utf8_lossy(&rejected.stderr);
        assert!(
            !rejected.status.success() && output.contains(message),
            "{bus}: {output}"
        );
    }
}
