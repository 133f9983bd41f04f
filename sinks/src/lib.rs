//! Drains: forwards apps' lines to syslog and HTTPS receivers.
//!
//! Reading order is data order: a `supervisor` selects the drains of this process by hash and lease
//! and runs each as a `drain`. Its `reader` puts the lines of a durable subscription in order into
//! a `queue`, which `render`s them for the receiver; a `transport` sends them over one connection
//! after another and reports which lines are confirmed. Unconfirmed lines are resent. A `notifier`
//! publishes problems of a drain to the app's log; `stats` and `metrics` count.
//!
//! Every line is delivered at least once or counted as lost and reported: lines that the bus no
//! longer retains in the drain itself (L10), lines that the receiver rejected in the app's log
//! (L13).

#![cfg_attr(
    test,
    allow(
        clippy::disallowed_methods,
        clippy::disallowed_types,
        reason = "tests use the operating system directly"
    )
)]

mod backoff;
mod budget;
mod config;
mod context;
mod drain;
mod error;
mod idle_timeout;
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
pub use error::SinksError;
pub use metrics::Metrics;
pub use probe::DrainProber;

/// Forwards lines until `shutdown`, then closes every connection and returns within ten seconds.
///
/// *Cancel safety*: dropping the future stops every drain at once; unconfirmed lines are sent again
/// by the next process.
///
/// # Errors
/// [`SinksError`] if a setting cannot be used, before any drain starts.
pub async fn run(
    config: Config,
    registry: Arc<dyn Registry>,
    bus: Arc<dyn Bus>,
    metrics: Metrics,
    shutdown: CancellationToken,
) -> Result<(), SinksError> {
    let context = context::DrainContext {
        connector: transport::connect::Connector::new(&config).map_err(SinksError)?,
        budget: budget::MemoryBudget::new(config.max_total_buffer_bytes),
        config,
        bus,
        registry,
        metrics,
    };
    supervisor::Supervisor::new(Arc::new(context)).run(shutdown).await;
    Ok(())
}
