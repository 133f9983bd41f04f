//! The collector: every line of every container, read through the Kubernetes log API or from the node's files, numbered, and published exactly once.
//!
//! Reading order is data order: `pods` come and go, and the `roster` has a task for each container `instance` that has a log; the task `follow`s it, asking
//! by `request` and `copy`ing what is answered; `lines` come out of the frames, found in their place (`seek`) by an `anchor`; a `stream` `number`s them; `publish` hands them to the bus,
//! by way of the `spool` when that is away, and a `checkpoint` says how far. What is `recorded` tells which instances were never seen.
//! With [`Source::Files`] the lines come out of the node's `files` instead.

mod anchor;
mod api;
mod config;
mod error;
#[doc(hidden)]
pub mod files;
mod idle_metrics;
mod instance;
mod metrics;
mod pods;
mod publish;
mod retry;
mod state_watch;
mod status;
#[doc(hidden)]
pub mod stream;
mod supervisor;

use std::{sync::Arc, time::Duration};

use bus::Bus;
use tokio::{task::JoinSet, time::interval};
use tokio_util::sync::CancellationToken;

pub use config::{AppFrom, Config, InvalidAppFrom, POD_LOG_DIR, Source, TopicGc};
pub use error::CollectorError;
pub use instance::{ContainerState, Instance, InstanceKey};
pub use metrics::Metrics;
pub use pods::instances::running_instances;
pub use status::Status;

use pods::{PodWatch, topic_gc::TopicCollector};
use publish::{checkpoint::CheckpointStore, context::PublishContext, rate_limit::RateLimits, spool::Spool};
use supervisor::Supervisor;

/// What an app may print, and the task that tells it; both none where that is not limited.
fn rate_limits(config: &Config, bus: &Arc<dyn Bus>) -> (Option<Arc<RateLimits>>, JoinSet<()>) {
    let mut notices = JoinSet::new();
    if config.app_rate == 0 {
        return (None, notices);
    }
    let burst = match config.app_burst {
        0 => config.app_rate.saturating_mul(BURST_SECONDS),
        burst => burst,
    };
    let node = config.node_name.as_deref().unwrap_or_default();
    let (rate_limits, publish_notices) = RateLimits::new(config.app_rate, burst, node, Arc::clone(bus));
    notices.spawn(publish_notices);
    (Some(Arc::new(rate_limits)), notices)
}

/// A burst that is not given, in seconds of the rate.
const BURST_SECONDS: u64 = 10;

/// Where batches wait for a bus that is away, beside the checkpoints.
const SPOOL_DIR: &str = "spool";

/// How often it is looked whether every container that is shown has a task.
const RECONCILE_EVERY: Duration = Duration::from_secs(5);

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
    let checkpoints = CheckpointStore::open(&config.checkpoint_dir)?;
    let (spool_dir, metrics) = (config.checkpoint_dir.join(SPOOL_DIR), config.metrics.clone());
    let spool = Spool::open(&spool_dir, config.spool_bytes, &checkpoints, metrics.clone())?;
    let (rate_limits, _teller) = rate_limits(&config, &bus);
    let context = PublishContext {
        rate_limits,
        bus,
        checkpoints,
        spool: Arc::new(spool),
        metrics,
        publish_wait: config.publish_wait,
    };
    let mut topic_gc_task = JoinSet::new();
    if let Some(topic_gc) = config.topic_gc {
        let topic_collector = TopicCollector::new(
            topic_gc,
            config.app_from.clone(),
            client.clone(),
            Arc::clone(&context.bus),
        );
        topic_gc_task.spawn(topic_collector.run());
    }
    let mut pods = PodWatch::new(client.clone(), &config);
    let mut supervisor = Supervisor::new(config, client, context, shutdown.clone());
    let mut reconcile = interval(RECONCILE_EVERY);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            _ = reconcile.tick() => supervisor.reconcile(),
            event = pods.next() => supervisor.apply(event),
            () = supervisor.reap() => {}
        }
    }
    let unfinished = supervisor.finish(SHUTDOWN_DEADLINE).await;
    if unfinished > 0 {
        tracing::warn!(
            streams = unfinished,
            "stopped before everything read was published: it is on disk, or read again"
        );
    }
    Ok(())
}
