//! HTTP for people and programs: one hub per app that is being read, fanned out to tails.
//!
//! Reading order is data order: `hub` follows an app on the bus, `gather` puts what is settled in the order of its timestamps and renders it once
//! into the `ring`; a `tail` is a cursor into the ring, begun by a read-back (`history`) of what the ring no longer has.

mod config;
mod error;
mod frame;
mod gather;
mod history;
mod hub;
mod hubs;
mod logs;
mod metrics;
mod notice;
mod query;
mod ring;
mod routes;
mod tail;
mod text;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{ServiceExt, extract::Request, serve::ListenerExt};
use bus::Bus;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower::Layer;
use tower_http::normalize_path::NormalizePathLayer;

pub use config::Config;
pub use metrics::Metrics;
pub use routes::openapi;

/// How long tails have, once the streamer stops, to take what is theirs. Below the 30 s that Kubernetes gives a pod.
const DRAIN: Duration = Duration::from_secs(5);

/// Takes the address that is to be served later: bind early, serve when the rest stands.
///
/// # Errors
/// The system's: the port is taken, or may not be had.
pub async fn bind(listen: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(listen).await
}

/// Serves until `shutdown`; then every tail ends properly, with its last chunk, and so does this.
///
/// # Errors
/// The listener's, where it can accept no more.
pub async fn run(
    config: Config,
    listener: TcpListener,
    bus: Arc<dyn Bus>,
    metrics: Metrics,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let listener = listener.tap_io(|connection| {
        // A line is to be seen when it is written, not when more has come to fill a packet.
        if let Err(error) = connection.set_nodelay(true) {
            tracing::debug!(%error, "no TCP_NODELAY");
        }
    });
    let hubs = hubs::Hubs::new(config, bus, metrics, shutdown.clone());
    // The real client's base address may end in a slash, and so its paths begin with two.
    let service = NormalizePathLayer::trim_trailing_slash().layer(routes::router(Arc::clone(&hubs)));
    let service = ServiceExt::<Request>::into_make_service(service);
    let stopping = shutdown.clone();
    let serve = axum::serve(listener, service).with_graceful_shutdown(async move { stopping.cancelled().await });
    let served = tokio::select! {
        served = serve => served,
        () = async { shutdown.cancelled().await; tokio::time::sleep(DRAIN).await } => {
            tracing::warn!("clients that did not take their last lines in time are cut off");
            Ok(())
        }
    };
    hubs.close().await;
    served
}
