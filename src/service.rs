//! A service as a task with a stop token and a shutdown deadline.

use std::time::Duration;

use anyhow::anyhow;
use futures::{StreamExt, stream::FuturesUnordered};
use tokio::task::{JoinError, JoinHandle};
use tokio_util::sync::CancellationToken;

/// Shutdown deadline of one service. Two in turn stay below the 30 s that Kubernetes gives a pod.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(12);

/// A running service.
pub(crate) struct Service {
    name: &'static str,
    stop: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Service {
    /// Spawns a service, which must return when `stop` is cancelled.
    pub(crate) fn start(
        name: &'static str,
        stop: CancellationToken,
        run: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) -> Self {
        Self {
            name,
            stop,
            task: system::task::spawn(run),
        }
    }

    /// Waits for the service to end before it was stopped, which is a failure.
    async fn failure(&mut self) -> anyhow::Error {
        match (&mut self.task).await {
            Ok(Ok(())) => anyhow!("the {} ended unexpectedly", self.name),
            ended => self
                .outcome(ended)
                .err()
                .unwrap_or_else(|| anyhow!("the {} ended", self.name)),
        }
    }

    async fn stop(mut self) -> anyhow::Result<()> {
        self.stop.cancel();
        if self.task.is_finished() {
            return Ok(());
        }
        match tokio::time::timeout(SHUTDOWN_DEADLINE, &mut self.task).await {
            Ok(ended) => self.outcome(ended),
            Err(_) => {
                self.task.abort();
                Err(anyhow!(
                    "the {} did not stop within {} s",
                    self.name,
                    SHUTDOWN_DEADLINE.as_secs()
                ))
            }
        }
    }

    fn outcome(&self, ended: Result<anyhow::Result<()>, JoinError>) -> anyhow::Result<()> {
        ended.map_err(|panic| anyhow!("the {} failed: {panic}", self.name))?
    }
}

/// Runs services until `shutdown` or until one fails, then stops all of them one after the other,
/// in this order, so that the last output of one reaches the next.
///
/// # Errors
/// The first failure.
pub(crate) async fn run(mut services: Vec<Service>, shutdown: CancellationToken) -> anyhow::Result<()> {
    let mut failures: FuturesUnordered<_> = services.iter_mut().map(Service::failure).collect();
    let mut outcome = tokio::select! {
        () = shutdown.cancelled() => Ok(()),
        Some(failure) = failures.next() => Err(failure),
    };
    drop(failures);
    for service in services {
        let stopped = service.stop().await;
        outcome = outcome.and(stopped);
    }
    outcome
}
