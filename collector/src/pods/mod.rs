//! The pods of a node, as they come, change and go.

pub mod instances;
pub mod last_seen;
pub mod namespaces;
pub mod topic_gc;

use std::time::Duration;

use futures::{StreamExt, stream::BoxStream};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    runtime::watcher::{self, Event, watcher},
};
use tokio::time::{Instant, sleep_until};

use crate::{config::Config, retry::Backoff};
use instances::is_excluded;
use namespaces::Namespaces;

/// The first wait after the watch broke.
const RETRY_FIRST: Duration = Duration::from_millis(100);

/// The longest: an API that comes back is noticed within this.
const RETRY_MAX: Duration = Duration::from_secs(10);

/// The longest that a server is believed to need.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

/// The pods of a node, or of all, as far as they are chosen.
///
/// Goes on from where it was after a broken watch, and lists anew where that is too old; waits out an API that is away.
pub struct PodWatch {
    client: kube::Client,
    config: watcher::Config,
    namespaces: Namespaces,
    /// How often the pods are listed anew, and when next.
    relist_every: Duration,
    relist_at: Instant,
    events: BoxStream<'static, watcher::Result<Event<Pod>>>,
    backoff: Backoff,
    not_before: Instant,
    is_failing: bool,
}

impl PodWatch {
    /// Begins with a list, once asked for the first event.
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
            not_before: Instant::now(),
            is_failing: false,
        }
    }

    /// The next event.
    ///
    /// *Cancel safety*: nothing is lost when the call is dropped.
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
                    // The beginning of a list proves nothing: the request is still to be made.
                    if !matches!(event, Event::Init) {
                        self.succeeded();
                    }
                    if let Some(event) = self.filter(event) {
                        return event;
                    }
                }
                Some(Err(error)) => self.failed(&error),
                // The stream never ends; should it, nothing more is to come.
                None => std::future::pending().await,
            }
        }
    }

    /// What an event says of the pods that are collected: one that is left out is not there.
    fn filter(&mut self, event: Event<Pod>) -> Option<Event<Pod>> {
        let mut is_collected = |pod: &Pod| {
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            !is_excluded(pod) && self.namespaces.is_selected(namespace)
        };
        match event {
            Event::InitApply(pod) if !is_collected(&pod) => None,
            Event::Apply(pod) if !is_collected(&pod) => Some(Event::Delete(pod)),
            event => Some(event),
        }
    }

    /// A watch that fell silent because its connection is gone looks like one of pods that do not change.
    fn relist(&mut self) {
        self.relist_at = relist_at(self.relist_every);
        self.events = watcher(Api::<Pod>::all(self.client.clone()), self.config.clone()).boxed();
    }

    fn succeeded(&mut self) {
        if self.is_failing {
            tracing::info!("pods are watched again");
        }
        self.is_failing = false;
        self.backoff.reset();
    }

    fn failed(&mut self, error: &watcher::Error) {
        if !self.is_failing {
            tracing::warn!(%error, "pods cannot be watched for now");
        }
        self.is_failing = true;
        let requested = retry_after(error).unwrap_or_default().min(MAX_RETRY_AFTER);
        self.not_before = Instant::now() + self.backoff.next_delay().max(requested);
    }
}

/// When a server that has too much to do wants to be asked again.
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

/// Jittered, so that the collectors of a cluster do not list together.
fn relist_at(every: Duration) -> Instant {
    Instant::now() + every.mul_f64(rand::random_range(0.8..=1.2))
}
