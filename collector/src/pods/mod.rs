//! Watches pods and namespaces and derives container instances from them; depends only on the
//! configuration and the shared types.

pub mod instances;
pub mod last_seen;
pub mod namespaces;
pub mod node_name;
pub mod topic_gc;

use std::time::Duration;

use futures::{StreamExt, stream::BoxStream};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    runtime::watcher::{self, Event, watcher},
};
use system::{
    clock::{Instant, since, steady},
    random::random_range,
};
use tokio::time::sleep_until;

use crate::{config::Config, retry::Backoff};
use causes::kubernetes::describe_watch;
use namespaces::Namespaces;

/// Delay before the first retry of the watch.
const RETRY_FIRST: Duration = Duration::from_millis(100);

/// Longest delay between retries.
const RETRY_MAX: Duration = Duration::from_secs(10);

/// Upper bound for a delay that the API server requests.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

/// An absence of the API that can hide the rotation of a log: kubelets check every 3 s at most.
const AWAY: Duration = Duration::from_secs(3);

/// Time after an absence in which events from it arrive.
const LATE: Duration = Duration::from_secs(2);

/// Watches the selected pods of one node or of all nodes.
///
/// Resumes a broken watch, lists again if the resource version is too old, and retries while the
/// API is unavailable.
pub struct PodWatch {
    client: kube::Client,
    config: watcher::Config,
    namespaces: Namespaces,
    /// Interval of full lists, and when the next one is due.
    relist_every: Duration,
    relist_at: Instant,
    events: BoxStream<'static, watcher::Result<Event<Pod>>>,
    backoff: Backoff,
    not_before: Instant,
    failing_since: Option<Instant>,
    /// Until when events can be late, because the watch has failed.
    late_until: Option<Instant>,
}

impl PodWatch {
    /// Creates the watch; the first call of [`next`](Self::next) lists the pods.
    pub fn new(client: kube::Client, settings: &Config) -> Self {
        let config = match &settings.node_name {
            Some(node) => watcher::Config::default().fields(&format!("spec.nodeName={node}")),
            None => watcher::Config::default(),
        };
        let config = match &settings.pod_selector {
            Some(selector) => config.labels(selector),
            None => config,
        };
        Self {
            namespaces: Namespaces::new(client.clone(), settings.namespace_selector.as_deref()),
            events: watcher(Api::<Pod>::all(client.clone()), config.clone()).boxed(),
            client,
            config,
            relist_every: settings.relist_every,
            relist_at: relist_at(settings.relist_every),
            backoff: Backoff::new(RETRY_FIRST, RETRY_MAX),
            not_before: steady(),
            failing_since: None,
            late_until: None,
        }
    }

    /// Returns the next event.
    ///
    /// *Cancel safety*: no event is lost.
    pub async fn next(&mut self) -> Event<Pod> {
        loop {
            if !self.namespaces.is_ready() {
                self.namespaces.changed().await;
            }
            sleep_until(self.not_before).await;
            let event = tokio::select! {
                event = self.events.next() => event,
                () = self.namespaces.changed() => {
                    self.relist();
                    continue;
                }
                () = sleep_until(self.relist_at) => {
                    self.relist();
                    continue;
                }
            };
            match event {
                Some(Ok(event)) => {
                    // The start of a list is reported before its request is sent.
                    if !matches!(event, Event::Init) {
                        self.succeeded();
                    }
                    if let Some(event) = self.filter(event) {
                        return event;
                    }
                }
                Some(Err(error)) => self.failed(&error),
                // The stream is endless.
                None => std::future::pending().await,
            }
        }
    }

    /// Maps an event to the collected pods: a pod that is not selected counts as deleted.
    fn filter(&mut self, event: Event<Pod>) -> Option<Event<Pod>> {
        let mut is_collected = |pod: &Pod| {
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            self.namespaces.is_selected(namespace)
        };
        match event {
            Event::InitApply(pod) if !is_collected(&pod) => None,
            Event::Apply(pod) if !is_collected(&pod) => Some(Event::Delete(pod)),
            event => Some(event),
        }
    }

    /// Lists again, because a watch with a dead connection looks like one without changes.
    fn relist(&mut self) {
        self.relist_at = relist_at(self.relist_every);
        self.events = watcher(Api::<Pod>::all(self.client.clone()), self.config.clone()).boxed();
    }

    /// Returns whether the last event may be late: the API was away.
    pub fn is_late(&self) -> bool {
        self.late_until.is_some_and(|until| steady() < until)
    }

    fn succeeded(&mut self) {
        if let Some(failing_since) = self.failing_since.take() {
            tracing::info!("pod watch recovered");
            if since(failing_since) >= AWAY {
                self.late_until = Some(steady() + LATE);
            }
        }
        self.backoff.reset();
    }

    fn failed(&mut self, error: &watcher::Error) {
        if self.failing_since.is_none() {
            tracing::warn!(error = describe_watch(error), "pod watch failed, retrying");
        }
        self.failing_since.get_or_insert_with(steady);
        let requested = retry_after(error).unwrap_or_default().min(MAX_RETRY_AFTER);
        self.not_before = steady() + self.backoff.next_delay().max(requested);
    }
}

/// Returns the delay that an overloaded server requests.
fn retry_after(error: &watcher::Error) -> Option<Duration> {
    use watcher::Error;
    let status = match error {
        Error::InitialListFailed(kube::Error::Api(status))
        | Error::WatchStartFailed(kube::Error::Api(status))
        | Error::WatchFailed(kube::Error::Api(status)) => status,
        Error::WatchError(status) => status,
        _ => return None,
    };
    let seconds = status.details.as_ref()?.retry_after_seconds;
    (seconds > 0).then(|| Duration::from_secs(seconds.into()))
}

/// Jitter keeps a cluster's collectors from listing at the same time.
fn relist_at(every: Duration) -> Instant {
    steady() + every.mul_f64(random_range(0.8..=1.2))
}
