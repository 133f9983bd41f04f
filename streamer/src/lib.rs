//! The HTTP server for logs: one hub per app that is being read, and any number of tails per hub.
//!
//! Reading order is data order: `hub` follows an app on the bus, `hub::merge` sorts its lines by
//! timestamp, and `frame`s of them go into `hub::ring`. A `tail` is a position in the ring. It
//! starts with `history`, from the ring or, for older lines, from the bus; `history::select`
//! applies the client's filter. `http` sends the lines, rendered once per `format` for all tails,
//! as a response body or a WebSocket. `access` authorizes requests.

#![cfg_attr(
    test,
    allow(
        clippy::disallowed_methods,
        clippy::disallowed_types,
        reason = "tests use the operating system directly"
    )
)]

mod access;
mod config;
mod error;
mod format;
mod frame;
mod history;
mod http;
mod hub;
mod line;
mod metrics;
mod query;
mod tail;
mod tail_limits;
#[cfg(test)]
mod testing;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use bus::Bus;
use system::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower::Layer;
use tower_http::normalize_path::NormalizePathLayer;

use self::http::{AppState, ConnectionSettings, Connections};

pub use self::http::{AllowedOrigins, DrainService, InvalidOrigin, Listener, MAX_DRAINS, Tls, TlsError, openapi};
pub use access::{Access, InvalidWebhook};
pub use config::Config;
pub use metrics::Metrics;

/// How long open responses may take to finish during shutdown. Kubernetes gives a pod 30 s.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// Binds a listening socket, before the rest of the server is started.
///
/// # Errors
/// The error of the operating system, e.g. that the address is in use.
pub async fn bind(listen: SocketAddr) -> io::Result<TcpListener> {
    system::net::bind(listen).await
}

/// Serves the HTTP API until `shutdown`. Open responses then get the lines published so far and end
/// with their last chunk.
///
/// # Errors
/// An error of the listening socket.
pub async fn run(
    config: Config,
    access: Access,
    drains: DrainService,
    listener: impl Into<Listener>,
    bus: Arc<dyn Bus>,
    metrics: Metrics,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let Listener {
        tcp,
        tls,
        proxies,
        origins,
    } = listener.into();
    let settings = ConnectionSettings {
        tls,
        proxies: proxies.into(),
        header_timeout: config.header_timeout,
        max_connections: config.max_connections,
    };
    let connections = Connections {
        listener: tcp,
        stall_timeout: config.stall_timeout,
        stalled: metrics.stalled_connections.clone(),
    };
    let state = AppState::new(config, access, drains, bus, metrics, shutdown.clone());
    // The Gigalixir client's base URL can end in a slash; its paths then begin with two.
    let router = http::router(Arc::clone(&state), &origins, settings.tls.is_some());
    let service = NormalizePathLayer::trim_trailing_slash().layer(router);
    tokio::select! {
        () = http::serve(connections, settings, service, shutdown.clone()) => {}
        () = async { shutdown.cancelled().await; tokio::time::sleep(SHUTDOWN_TIMEOUT).await } => {
            tracing::warn!("shutdown timeout reached, closing open connections");
        }
    }
    // WebSockets are detached from their connections, so `serve` does not wait for them.
    if tokio::time::timeout(SHUTDOWN_TIMEOUT, state.hubs.close())
        .await
        .is_err()
    {
        tracing::warn!("shutdown timeout reached, closing open WebSockets");
    }
    Ok(())
}
