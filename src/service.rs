//! A service as a task that is told to stop and waited for.

use std::time::Duration;

use anyhow::anyhow;
use futures::{StreamExt, stream::FuturesUnordered};
use tokio::task::{JoinError, JoinHandle};
use tokio_util::sync::CancellationToken;

/// How long a service has to finish what it accepted. Two in turn stay below the 30 s that Kubernetes gives a pod.
const DRAIN: Duration = Duration::from_secs(12);

/// A service that runs.
pub(crate) struct Service {
    name: &'static str,
    stop: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Service {
    /// Starts it; it has to end when `stop` is cancelled.
    pub(crate) fn start(
        name: &'static str,
        stop: CancellationToken,
        run: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) -> Self {
        Self {
            name,
            stop,
            task: tokio::spawn(run),
        }
    }

    /// Returns what it means that the service ended without being told to.
    async fn failure(&mut self) -> anyhow::Error {
        match (&mut self.task).await {
            Ok(Ok(())) => anyhow!("the {} ended without being told to", self.name),
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
        match tokio::time::timeout(DRAIN, &mut self.task).await {
            Ok(ended) => self.outcome(ended),
            Err(_) => {
                self.task.abort();
                Err(anyhow!("the {} did not finish within {} s", self.name, DRAIN.as_secs()))
            }
        }
    }

    fn outcome(&self, ended: Result<anyhow::Result<()>, JoinError>) -> anyhow::Result<()> {
        ended.map_err(|panic| anyhow!("the {} failed: {panic}", self.name))?
    }
}

/// Runs services until told to stop, or until one fails; then stops them, one after the other in this order, so that what the first still hands over reaches the next.
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
