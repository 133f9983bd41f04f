//! HTTP for people and programs: one hub per app that is being read, fanned out to tails.
//!
//! Reading order is data order: `hub` follows an app on the bus, `merge` puts what is settled in the order of its timestamps, in `frame`s that go into the `ring`. A
//! `tail` is a cursor into the ring, begun by a `backlog` from the ring or from a read-back (`history`) of what the ring no longer has; it `choose`s what its reader
//! wants, and hands it over, rendered once a `format` for all, as a `body` or a `socket`. `access` says who may.

mod access;
mod account;
mod backlog;
mod body;
mod charge;
mod choose;
mod config;
mod connection;
mod drains;
mod error;
mod filter;
mod format;
mod forwarded;
mod frame;
mod gather;
mod gzip;
mod history;
mod hub;
mod hubs;
mod ledger;
mod limits;
mod logs;
mod merge;
mod metrics;
mod pace;
mod piece;
mod query;
mod record;
mod ring;
mod routes;
mod same_site;
mod serve;
mod sessions;
mod settled;
mod socket;
mod tail;
#[cfg(test)]
mod testing;
mod tls;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use bus::Bus;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower::Layer;
use tower_http::normalize_path::NormalizePathLayer;

use connection::Connections;
use serve::Way;

pub use access::{Access, InvalidWebhook, MAX_DRAINS};
pub use config::Config;
pub use metrics::Metrics;
pub use routes::openapi;
pub use same_site::{InvalidOrigin, Sites};
pub use serve::Door;
pub use tls::{Tls, TlsError};

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
    access: Access,
    door: impl Into<Door>,
    bus: Arc<dyn Bus>,
    metrics: Metrics,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let Door {
        listener,
        tls,
        proxies,
        sites,
    } = door.into();
    let way = Way {
        tls,
        proxies: proxies.into(),
        head_wait: config.head_wait,
    };
    let connections = Connections {
        listener,
        stall: config.stall,
        stalled: metrics.stalled_connections.clone(),
    };
    let hubs = hubs::Hubs::new(config, access, bus, metrics, shutdown.clone());
    // The real client's base address may end in a slash, and so its paths begin with two.
    let service =
        NormalizePathLayer::trim_trailing_slash().layer(routes::router(Arc::clone(&hubs), &sites, way.tls.is_some()));
    tokio::select! {
        () = serve::serve(connections, way, service, shutdown.clone()) => {}
        () = async { shutdown.cancelled().await; tokio::time::sleep(DRAIN).await } => {
            tracing::warn!("clients that did not take their last lines in time are cut off");
        }
    }
    // WebSockets are nobody's connection any more: they are waited for here.
    if tokio::time::timeout(DRAIN, hubs.close()).await.is_err() {
        tracing::warn!("clients that did not take their last lines in time are cut off");
    }
    Ok(())
}
