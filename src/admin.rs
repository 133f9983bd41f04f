//! What operators and probes ask a service: `/healthz`, `/readyz`, `/metrics`.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use futures::future::BoxFuture;
use prometheus_client::{encoding::text::encode, registry::Registry};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::console as say;

/// How long what a service stands on may take to answer; Kubernetes asks again every ten seconds.
const READY_WAIT: Duration = Duration::from_secs(2);

/// The media type of what `/metrics` serves.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Asks what a service stands on whether it answers; the reason where it does not.
pub(crate) type Ready = Arc<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// A service's answers.
#[derive(Clone)]
struct Answers {
    registry: Arc<Registry>,
    ready: Ready,
}

/// Takes the address. One that nobody named gives way to a free one, where it is taken: it must keep nobody from starting.
///
/// # Errors
/// One line that says what to do.
pub(crate) async fn bind(named: Option<SocketAddr>, default_port: u16) -> anyhow::Result<TcpListener> {
    let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let bound = match named {
        Some(addr) => TcpListener::bind(addr)
            .await
            .with_context(|| format!("cannot listen on {addr} (choose another with --admin-listen)")),
        None => match TcpListener::bind(local(default_port)).await {
            Ok(listener) => Ok(listener),
            Err(_) => TcpListener::bind(local(0))
                .await
                .context("cannot listen for probes (name a place with --admin-listen)"),
        },
    };
    let listener = bound?;
    let addr = listener.local_addr().context("the admin listener has no address")?;
    say::aside(&format!("listening on http://{addr}"));
    Ok(listener)
}

/// Serves until `shutdown`.
pub(crate) async fn run(
    listener: TcpListener,
    registry: Registry,
    ready: Ready,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let answers = Answers {
        registry: Arc::new(registry),
        ready,
    };
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(answers);
    // Nobody waits for a last metric.
    tokio::select! {
        served = axum::serve(listener, router) => served.context("the admin listener failed"),
        () = shutdown.cancelled() => Ok(()),
    }
}

async fn readyz(State(answers): State<Answers>) -> Response {
    match tokio::time::timeout(READY_WAIT, (answers.ready)()).await {
        Ok(Ok(())) => "ok\n".into_response(),
        Ok(Err(reason)) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "no answer in time\n").into_response(),
    }
}

async fn metrics(State(answers): State<Answers>) -> Response {
    let mut text = String::new();
    match encode(&mut text, &answers.registry) {
        Ok(()) => ([(header::CONTENT_TYPE, OPENMETRICS)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
