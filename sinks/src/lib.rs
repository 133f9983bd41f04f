//! Drains: an app's lines, forwarded to syslog and HTTPS receivers, each with an account of its own.
//!
//! Reading order is data order: a `fleet` says which drains this process reads; a `drain` has a `feed` of what its durable subscription delivers, in a `queue`, `render`ed as
//! its receiver takes it, and sends it over one connection after the other: a `stream` (TCP, TLS), `datagram`s, or frames of the `web`. What is `unconfirmed` is sent again. A `dial` asks
//! for the receiver's addresses each time, and `resolve`s none into the operator's network. A `herald` tells the app what is wrong.
//!
//! Every line is delivered at least once, or counted as dropped and told: in the drain itself what the bus no longer had (L10), in the app's log what the receiver refused (L13).

mod config;
mod drain;
mod metrics;
mod notifier;
mod probe;
mod queue;
mod reader;
mod render;
mod stats;
mod supervisor;
mod transport;

use std::sync::Arc;

use bus::Bus;
use registry::Registry;
use tokio_util::sync::CancellationToken;

pub use config::{Config, Replica};
pub use metrics::Metrics;
pub use probe::Probe;

/// What is configured cannot be used, in one line. Without a secret.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SinksError(String);

/// Forwards lines until `shutdown`; then each connection ends in good order, and so does this, within ten seconds.
///
/// # Errors
/// [`SinksError`]: what cannot be used, at the start.
pub async fn run(
    config: Config,
    registry: Arc<dyn Registry>,
    bus: Arc<dyn Bus>,
    metrics: Metrics,
    shutdown: CancellationToken,
) -> Result<(), SinksError> {
    let house = drain::House {
        dialler: transport::connect::Dialler::new(&config).map_err(SinksError)?,
        windows: queue::Windows::new(config.windows_bytes),
        config,
        bus,
        registry,
    };
    supervisor::Fleet::new(Arc::new(house), metrics).run(shutdown).await;
    Ok(())
}
