//! The collector: reads every line of every container through the Kubernetes log API or from the
//! node's files, numbers it, and publishes it exactly once.
//!
//! Reading order is data order: `pods` watches pods and derives container instances; the
//! `supervisor` runs a task for each instance. The task reads the log through the `api`, following
//! one response after the other, or from the node's `files`. A `stream` splits the data into lines,
//! finds the resume point by its `anchor`, and assigns sequence numbers. `publish` applies rate
//! limits and sends batches to the bus, through the spool while the bus is unavailable; checkpoints
//! record what the bus has.

#![cfg_attr(
    test,
    allow(
        clippy::disallowed_methods,
        clippy::disallowed_types,
        reason = "tests use the operating system directly"
    )
)]

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
mod progress;
mod publish;
mod report;
mod retry;
mod selector;
mod state_watch;
#[doc(hidden)]
pub mod stream;
mod supervisor;

use std::{sync::Arc, time::Duration};

use bus::Bus;
use system::task::spawn_in;
use tokio::{task::JoinSet, time::interval};
use tokio_util::sync::CancellationToken;

pub use config::{AppFrom, Config, InvalidAppFrom, POD_LOG_DIR, Source, TopicGc};
pub use error::CollectorError;
pub use instance::{ContainerState, Instance, InstanceKey};
pub use metrics::Metrics;
pub use pods::instances::running_instances;
pub use progress::Progress;
pub use selector::check_label_selector;

use pods::{PodWatch, node_name::NodeNameCheck, topic_gc::TopicCollector};
use publish::{
    checkpoint::{CheckpointStore, Damage},
    context::PublishContext,
    notices::Notices,
    rate_limit::RateLimits,
    spool::Spool,
};
use supervisor::Supervisor;

/// Creates the rate limits; `None` without a limit.
fn rate_limits(config: &Config, notices: &Notices) -> Option<Arc<RateLimits>> {
    let burst = match config.app_burst {
        0 => config.app_rate.saturating_mul(BURST_SECONDS),
        burst => burst,
    };
    (config.app_rate > 0).then(|| Arc::new(RateLimits::new(config.app_rate, burst, notices.clone())))
}

/// The default burst, in seconds of the rate.
const BURST_SECONDS: u64 = 10;

/// Directory of the spool inside the checkpoint directory.
const SPOOL_DIR: &str = "spool";

/// How often checkpoints are synced, apart from those of new instances: after a loss of power, what
/// was read in this time is read again.
const SYNC_EVERY: Duration = Duration::from_secs(5);

/// Syncs checkpoints until it is dropped.
async fn sync_checkpoints(checkpoints: CheckpointStore) {
    loop {
        let _ = tokio::time::timeout(SYNC_EVERY, checkpoints.new_instance()).await;
        checkpoints.sync().await;
    }
}

/// How often missing tasks are started again.
const RECONCILE_EVERY: Duration = Duration::from_secs(5);

/// Time limit for publishing at shutdown; less than the 10 s that callers have.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(8);

/// Collects until `shutdown` is cancelled, then publishes what was read for at most 8 s. The rest
/// is read again after the next start.
///
/// Retries all failures of the API and the bus. Dropping the future has the effect of a kill:
/// checkpoints and spool stay valid.
///
/// # Errors
/// [`CollectorError`] at startup if the checkpoint directory cannot be used.
pub async fn run(
    config: Config,
    client: kube::Client,
    bus: Arc<dyn Bus>,
    shutdown: CancellationToken,
) -> Result<(), CollectorError> {
    let (spool_dir, metrics) = (config.checkpoint_dir.join(SPOOL_DIR), config.metrics.clone());
    let (checkpoints, damage) = CheckpointStore::open(&config.checkpoint_dir, &metrics)?;
    if let Some(Damage { reason, set_aside }) = damage {
        let set_aside = set_aside.map(|path| path.display().to_string());
        tracing::warn!(dir = %config.checkpoint_dir.display(), reason, set_aside, "checkpoints doubtful, starting new streams");
    }
    let spool = Spool::open(&spool_dir, config.spool_bytes, &checkpoints, metrics.clone())?;
    let node = config.node_name.as_deref().unwrap_or_default();
    let (notices, publish_notices) = Notices::new(node, Arc::clone(&bus));
    let mut notice_task = JoinSet::new();
    spawn_in(&mut notice_task, publish_notices);
    let context = PublishContext {
        rate_limits: rate_limits(&config, &notices),
        notices,
        unreadable: config.progress.unreadable.clone(),
        bus,
        checkpoints,
        spool: Arc::new(spool),
        metrics,
        publish_wait: config.publish_wait,
    };
    let checkpoints = context.checkpoints.clone();
    let mut sync_task = JoinSet::new();
    spawn_in(&mut sync_task, sync_checkpoints(checkpoints.clone()));
    let mut topic_gc_task = JoinSet::new();
    if let Some(topic_gc) = config.topic_gc {
        let topic_collector = TopicCollector::new(
            topic_gc,
            config.app_from.clone(),
            client.clone(),
            Arc::clone(&context.bus),
        );
        spawn_in(&mut topic_gc_task, topic_collector.run());
    }
    let (progress, spool) = (config.progress.clone(), Arc::clone(&context.spool));
    let mut pods = PodWatch::new(client.clone(), &config);
    let mut node_name = NodeNameCheck::new(&config, client.clone());
    let mut supervisor = Supervisor::new(config, client, context, shutdown.clone());
    let mut reconcile = interval(RECONCILE_EVERY);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            _ = reconcile.tick() => {
                supervisor.reconcile();
                node_name.check(supervisor.pods());
                progress.set_disk_failure(checkpoints.failure().or_else(|| spool.failure()));
            }
            event = pods.next() => supervisor.apply(event, pods.is_late()),
            () = supervisor.reap() => {}
        }
    }
    let unfinished = supervisor.finish(SHUTDOWN_DEADLINE).await;
    if unfinished > 0 {
        tracing::warn!(
            streams = unfinished,
            "shutdown deadline exceeded, unpublished data is kept in the spool or read again"
        );
    }
    checkpoints.shut_down().await;
    Ok(())
}
