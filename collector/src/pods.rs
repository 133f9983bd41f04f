//! The pods of a node, as they come, change and go.

use std::time::Duration;

use futures::{StreamExt, stream::BoxStream};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    runtime::watcher::{self, Event, watcher},
};
use tokio::time::{Instant, sleep_until};

use crate::backoff::Backoff;

/// The first wait after the watch broke.
const RETRY_FIRST: Duration = Duration::from_millis(100);

/// The longest: an API that comes back is noticed within this.
const RETRY_MOST: Duration = Duration::from_secs(10);

/// The pods of a node, or of all.
///
/// Goes on from where it was after a broken watch, and lists anew where that is too old; waits out an API that is away.
pub struct Pods {
    events: BoxStream<'static, watcher::Result<Event<Pod>>>,
    backoff: Backoff,
    not_before: Instant,
    failing: bool,
}

impl Pods {
    /// Begins with a list, once asked for the first event.
    pub fn new(client: kube::Client, node_name: Option<&str>) -> Self {
        let config = match node_name {
            Some(node) => watcher::Config::default().fields(&format!("spec.nodeName={node}")),
            None => watcher::Config::default(),
        };
        Self {
            events: watcher(Api::<Pod>::all(client), config).boxed(),
            backoff: Backoff::new(RETRY_FIRST, RETRY_MOST),
            not_before: Instant::now(),
            failing: false,
        }
    }

    /// The next event.
    ///
    /// *Cancel safety*: nothing is lost when the call is dropped.
    pub async fn next(&mut self) -> Event<Pod> {
        loop {
            sleep_until(self.not_before).await;
            match self.events.next().await {
                Some(Ok(event)) => {
                    // The beginning of a list proves nothing: the request is still to be made.
                    if !matches!(event, Event::Init) {
                        self.succeeded();
                    }
                    return event;
                }
                Some(Err(error)) => self.failed(&error),
                // The stream never ends; should it, nothing more is to come.
                None => std::future::pending().await,
            }
        }
    }

    fn succeeded(&mut self) {
        if self.failing {
            tracing::info!("pods are watched again");
        }
        self.failing = false;
        self.backoff.reset();
    }

    fn failed(&mut self, error: &watcher::Error) {
        if !self.failing {
            tracing::warn!(%error, "pods cannot be watched for now");
        }
        self.failing = true;
        self.not_before = Instant::now() + self.backoff.next();
    }
}
