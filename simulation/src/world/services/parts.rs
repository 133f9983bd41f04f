//! What both compositions of the services have in common.

use std::{path::Path, time::Duration};

use anyhow::Context;
use futures::{StreamExt, stream::FuturesUnordered};
use prometheus_client::registry::Registry as Metrics;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{plan::Source, world::node};

/// Limit for the end of one service; a service that does not end is a failure.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(12);

/// A running part of a process.
pub struct Part {
    name: &'static str,
    stop: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Part {
    /// Starts a part, which must return when its token is cancelled.
    pub fn start<F>(name: &'static str, run: impl FnOnce(CancellationToken) -> F) -> Self
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let stop = CancellationToken::new();
        let task = system::task::spawn(run(stop.clone()));
        Self { name, stop, task }
    }

    /// Waits for the end of the part before it was stopped, which is a failure.
    async fn ended(&mut self) -> anyhow::Result<()> {
        (&mut self.task).await.context(self.name)?.context(self.name)?;
        anyhow::bail!("the {} ended by itself", self.name)
    }
}

/// Runs parts until `stop` or until one ends, then stops them one after the other.
///
/// # Errors
/// A part failed, ended by itself or does not stop.
pub async fn run(mut parts: Vec<Part>, stop: CancellationToken) -> anyhow::Result<()> {
    let mut failures: FuturesUnordered<_> = parts.iter_mut().map(Part::ended).collect();
    tokio::select! {
        () = stop.cancelled() => {}
        Some(failure) = failures.next() => return failure,
    }
    drop(failures);
    for part in parts {
        part.stop.cancel();
        tokio::time::timeout(SHUTDOWN_DEADLINE, part.task)
            .await
            .with_context(|| format!("the {} does not stop", part.name))?
            .context(part.name)?
            .context(part.name)?;
    }
    Ok(())
}

/// Returns the settings of the collector.
pub fn collector_config(source: Source, data: &Path, metrics: &mut Metrics) -> collector::Config {
    let mut config = collector::Config::new(data.join("checkpoints"));
    config.node_name = Some("node-1".to_owned());
    config.metrics = collector::Metrics::register(metrics);
    if source == Source::Files {
        config.source = collector::Source::Files;
        config.pod_log_dir = node::LOG_DIR.into();
    }
    config
}
