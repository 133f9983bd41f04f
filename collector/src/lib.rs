//! The collector: every line of every container, read through the Kubernetes log API or from the node's files, numbered, and published exactly once.
//!
//! Reading order is data order: `pods` come and go, and the `roster` has a task for each container `instance` that has a log; the task `follow`s it, asking
//! by `request`; `lines` come out of the frames, found in their place (`seek`) by an `anchor`; a `stream` numbers them; `publish` hands them to the bus, and
//! a `checkpoint` says how far. With [`Source::Files`] the lines come out of the node's `files` instead. What is `recorded` tells which instances were never seen.

mod anchor;
mod backoff;
mod checkpoint;
mod config;
mod cut;
mod error;
#[doc(hidden)]
pub mod files;
mod follow;
mod instance;
#[doc(hidden)]
pub mod lines;
mod pods;
mod publish;
mod recorded;
mod request;
mod roster;
mod seek;
mod silence;
mod status;
mod stream;

use std::{sync::Arc, time::Duration};

use bus::Bus;
use tokio_util::sync::CancellationToken;

pub use config::{AppFrom, Config, InvalidAppFrom, POD_LOG_DIR, Source};
pub use error::CollectorError;
pub use status::Status;

use checkpoint::Checkpoints;
use pods::Pods;
use roster::Roster;

/// What was read is published within this, once the collector is to stop; below the 10 s that the caller has.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(8);

/// Collects until it is told to stop; then publishes what was read, for 8 s at most, and returns. What remains is read again at the next start.
///
/// Waits out whatever happens to the API and the bus. Dropping the future is as a kill: the checkpoints hold.
///
/// # Errors
/// [`CollectorError`], at the start only: the checkpoint directory cannot be used.
pub async fn run(
    config: Config,
    client: kube::Client,
    bus: Arc<dyn Bus>,
    shutdown: CancellationToken,
) -> Result<(), CollectorError> {
    let checkpoints = Checkpoints::open(&config.checkpoint_dir)?;
    let mut pods = Pods::new(client.clone(), config.node_name.as_deref());
    let mut roster = Roster::new(config, client, bus, checkpoints, shutdown.clone());
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            event = pods.next() => roster.apply(event),
            () = roster.reap() => {}
        }
    }
    let unfinished = roster.finish(SHUTDOWN_DEADLINE).await;
    if unfinished > 0 {
        tracing::warn!(
            streams = unfinished,
            "stopped before everything read was published: it is read again"
        );
    }
    Ok(())
}
