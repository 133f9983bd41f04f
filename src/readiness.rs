//! The readiness check of a service.

use std::sync::Arc;

use bus::Bus;
use collector::Progress;
use futures::{FutureExt, future::BoxFuture};
use tokio_util::sync::CancellationToken;

/// A readiness check; its error is the reason why the service is not ready.
pub(crate) type Ready = Arc<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// Returns the readiness check of a service: it is not stopping, the bus answers, and so does the
/// Kubernetes API if the service uses it.
pub(crate) fn ready(bus: &Arc<dyn Bus>, kubernetes: Option<kube::Client>, stopping: CancellationToken) -> Ready {
    let bus = Arc::clone(bus);
    Arc::new(move || {
        let (bus, kubernetes, stopping) = (Arc::clone(&bus), kubernetes.clone(), stopping.clone());
        async move {
            if stopping.is_cancelled() {
                return Err("shutting down".to_owned());
            }
            bus.check().await.map_err(|error| error.to_string())?;
            let Some(kubernetes) = kubernetes else { return Ok(()) };
            let version = kubernetes.apiserver_version().await;
            version
                .map(drop)
                .map_err(|error| format!("no answer from the Kubernetes API: {error}"))
        }
        .boxed()
    })
}

/// Adds to a readiness check that the disk accepts the collector's checkpoints and spool. With
/// `reads_all`, the logs of all containers must be readable too: not for a process that also serves
/// readers, because a broken node must not take it out of service.
pub(crate) fn with_collector(ready: Ready, progress: Progress, reads_all: bool) -> Ready {
    Arc::new(move || {
        let unread = || progress.missing_pods().or_else(|| progress.unreadable_containers());
        let unread = || unread().filter(|_| reads_all);
        let (ready, failure) = (Arc::clone(&ready), progress.disk_failure().or_else(unread));
        async move {
            match failure {
                Some(reason) => Err(reason),
                None => ready().await,
            }
        }
        .boxed()
    })
}
