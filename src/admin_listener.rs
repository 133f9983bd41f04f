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
use bus::Bus;
use futures::{FutureExt, future::BoxFuture};
use prometheus_client::{encoding::text::encode, registry::Registry};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::console;

/// How long a readiness check may take. Kubernetes probes every ten seconds.
const READY_TIMEOUT: Duration = Duration::from_secs(2);

/// Content type of `/metrics`.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A readiness check; its error is the reason why the service is not ready.
pub(crate) type Ready = Arc<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

#[derive(Clone)]
struct AdminState {
    registry: Arc<Registry>,
    ready: Ready,
}

/// Returns the readiness check of a service: it is not stopping, the bus answers, and so does the
/// Kubernetes API if the service uses it.
pub(crate) fn ready(bus: &Arc<dyn Bus>, kubernetes: Option<kube::Client>, stopping: CancellationToken) -> Ready {
    let bus = Arc::clone(bus);
    Arc::new(move || {
        let (bus, kubernetes, stopping) = (Arc::clone(&bus), kubernetes.clone(), stopping.clone());
        async move {
            if stopping.is_cancelled() {
                return Err("shutting down".to_owned());
            }
            bus.check().await.map_err(|error| error.to_string())?;
            let Some(kubernetes) = kubernetes else { return Ok(()) };
            let version = kubernetes.apiserver_version().await;
            version
                .map(drop)
                .map_err(|error| format!("no answer from the Kubernetes API: {error}"))
        }
        .boxed()
    })
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

/// Describes a failed bind: the address, the cause, and the flag that changes it.
pub(crate) fn bind_error(addr: SocketAddr, error: &std::io::Error, flag: &str) -> anyhow::Error {
    let cause = match error.kind() {
        std::io::ErrorKind::AddrInUse => "address already in use".to_owned(),
        std::io::ErrorKind::AddrNotAvailable => "no interface of this machine has this address".to_owned(),
        std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    };
    anyhow::anyhow!("cannot bind {addr}: {cause}; choose another address or port with {flag} (port 0: any free port)")
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
