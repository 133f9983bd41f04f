//! The admin listener of a service: `/healthz`, `/readyz`, `/metrics`.

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
use prometheus_client::{encoding::text::encode, registry::Registry};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{bind_error::bind_error, console, readiness::Ready};

/// How long a readiness check may take. Kubernetes probes every ten seconds.
const READY_TIMEOUT: Duration = Duration::from_secs(2);

/// Content type of `/metrics`.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Clone)]
struct AdminState {
    registry: Arc<Registry>,
    ready: Ready,
}

/// Binds the admin listener. Without an address it takes the default port on loopback, or a free
/// one if that port is in use: a missing admin port must not prevent a start.
///
/// # Errors
/// One line that names the address and the flag.
pub(crate) async fn bind(addr: Option<SocketAddr>, default_port: u16) -> anyhow::Result<TcpListener> {
    let loopback = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let bound = match addr {
        Some(addr) => TcpListener::bind(addr)
            .await
            .map_err(|error| bind_error(addr, &error, "--admin-listen")),
        None => match TcpListener::bind(loopback(default_port)).await {
            Ok(listener) => Ok(listener),
            Err(_) => TcpListener::bind(loopback(0))
                .await
                .map_err(|error| bind_error(loopback(0), &error, "--admin-listen")),
        },
    };
    let listener = bound?;
    let addr = listener
        .local_addr()
        .context("cannot read the address of the admin listener")?;
    console::eprintln_line(&format!("listening on http://{addr}"));
    Ok(listener)
}

/// Serves until `shutdown`; open requests are dropped then.
///
/// # Errors
/// Fails if the listener fails.
pub(crate) async fn run(
    listener: TcpListener,
    registry: Registry,
    ready: Ready,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let state = AdminState {
        registry: Arc::new(registry),
        ready,
    };
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(state);
    tokio::select! {
        served = axum::serve(listener, router) => served.context("the admin listener failed"),
        () = shutdown.cancelled() => Ok(()),
    }
}

async fn readyz(State(state): State<AdminState>) -> Response {
    match tokio::time::timeout(READY_TIMEOUT, (state.ready)()).await {
        Ok(Ok(())) => "ok\n".into_response(),
        Ok(Err(reason)) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
        Err(_) => {
            let reason = format!("no answer within {} s\n", READY_TIMEOUT.as_secs());
            (StatusCode::SERVICE_UNAVAILABLE, reason).into_response()
        }
    }
}

async fn metrics(State(state): State<AdminState>) -> Response {
    let mut text = String::new();
    match encode(&mut text, &state.registry) {
        Ok(()) => ([(header::CONTENT_TYPE, OPENMETRICS)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
