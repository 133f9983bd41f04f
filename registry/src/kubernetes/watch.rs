//! Watches the Secrets and publishes drains and keys as they change.

use std::{collections::BTreeMap, mem, sync::Arc, time::Duration};

use backon::ExponentialBuilder;
use futures::StreamExt;
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api,
    runtime::{
        WatchStreamExt,
        utils::ResetTimerBackoff,
        watcher::{self, Event, ExponentialBackoff, watcher},
    },
};
use parking_lot::Mutex;
use system::random::random;
use tokio::sync::{oneshot, watch};

use super::secret_layout::{self, Content};
use crate::{
    drain::Drains,
    key::{Keys, StoredKey},
};

/// Contents by the name of the Secret.
type Contents = BTreeMap<String, Content>;

/// The last known state, published to watchers.
pub(super) struct WatchedState {
    drains: watch::Sender<Arc<Drains>>,
    keys: watch::Sender<Arc<Keys>>,
    last: Mutex<Last>,
}

/// The Secrets as they were last seen.
struct Last {
    contents: Contents,
    /// Secrets of a list that is still being received.
    incoming: Contents,
    /// Completed by the first full list, or by the API's refusal.
    listed: Option<oneshot::Sender<Result<(), String>>>,
}

impl WatchedState {
    /// An empty state, and a receiver for the result of the first list.
    pub(super) fn new() -> (Self, oneshot::Receiver<Result<(), String>>) {
        let (sender, listed) = oneshot::channel();
        let state = Self {
            drains: watch::Sender::default(),
            keys: watch::Sender::new(Arc::default()),
            last: Mutex::new(Last {
                contents: Contents::new(),
                incoming: Contents::new(),
                listed: Some(sender),
            }),
        };
        (state, listed)
    }

    pub(super) fn drains(&self) -> watch::Receiver<Arc<Drains>> {
        self.drains.subscribe()
    }

    pub(super) fn keys(&self) -> watch::Receiver<Arc<Keys>> {
        self.keys.subscribe()
    }

    /// The HMAC secret of the keys.
    pub(super) fn secret(&self) -> Option<[u8; 32]> {
        secret(&self.last.lock().contents)
    }

    fn apply(&self, event: Event<Secret>) {
        let mut last = self.last.lock();
        let last = &mut *last;
        match event {
            Event::Init => last.incoming.clear(),
            Event::InitApply(secret) => {
                if let Some((name, content)) = content(&secret, &mut last.contents) {
                    last.incoming.insert(name, content);
                }
            }
            Event::InitDone => {
                last.contents = mem::take(&mut last.incoming);
                self.publish(&last.contents);
                last.listed.take().map(|listed| listed.send(Ok(())));
            }
            Event::Apply(secret) => {
                if let Some((name, content)) = content(&secret, &mut last.contents) {
                    last.contents.insert(name, content);
                }
                self.publish(&last.contents);
            }
            Event::Delete(secret) => {
                // Without the secret every key would be invalid, so the last one stays in use.
                let name = secret.metadata.name.unwrap_or_default();
                if name != secret_layout::SECRET_NAME {
                    last.contents.remove(&name);
                }
                self.publish(&last.contents);
            }
        }
    }

    /// Reports the API's refusal to the caller that waits for the first list.
    fn refuse(&self, reason: &str) {
        let listed = self.last.lock().listed.take();
        listed.map(|listed| listed.send(Err(reason.to_owned())));
    }

    /// Publishes what changed.
    fn publish(&self, contents: &Contents) {
        let drains: Drains = contents
            .values()
            .flat_map(|content| match content {
                Content::Drains(drains) => drains.as_slice(),
                _ => &[],
            })
            .map(|drain| (drain.id, drain.clone()))
            .collect();
        self.drains.send_if_modified(|current| {
            let changed = **current != drains;
            if changed {
                *current = Arc::new(drains);
            }
            changed
        });
        let keys: Vec<StoredKey> = contents
            .values()
            .filter_map(|content| match content {
                Content::Key(key) => Some(key.clone()),
                _ => None,
            })
            .collect();
        // Without the secret no key is valid.
        let keys = secret(contents).map_or_else(Keys::default, |secret| Keys::new(&secret, &keys));
        self.keys.send_if_modified(|current| {
            let changed = !current.equals(&keys);
            if changed {
                *current = Arc::new(keys);
            }
            changed
        });
    }
}

fn secret(contents: &Contents) -> Option<[u8; 32]> {
    match contents.get(secret_layout::SECRET_NAME) {
        Some(Content::Secret(secret)) => Some(*secret),
        _ => None,
    }
}

/// The content of a Secret. If it is corrupt, logs an error and keeps the last content.
fn content(secret: &Secret, last: &mut Contents) -> Option<(String, Content)> {
    let name = secret.metadata.name.clone()?;
    match secret_layout::read(secret) {
        Ok(content) => content.map(|content| (name, content)),
        Err(reason) => {
            tracing::error!(
                secret = name,
                reason,
                "registry secret is corrupt, keeping its last content"
            );
            last.remove(&name).map(|content| (name, content))
        }
    }
}

/// Watches the Secrets until the future is dropped.
pub(super) async fn watch_secrets(api: Api<Secret>, state: Arc<WatchedState>) {
    let config = watcher::Config::default().labels(&format!("{}={}", secret_layout::LABEL, secret_layout::WATCHED));
    let mut events = watcher(api, config).backoff(backoff()).boxed();
    let mut is_failing = false;
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => {
                is_failing = false;
                state.apply(event);
            }
            Err(error) if !is_failing => {
                is_failing = true;
                if let Some(reason) = refusal(&error) {
                    state.refuse(reason);
                }
                tracing::error!(
                    error = causes::kubernetes::describe_watch(&error),
                    "registry watch failed, keeping the last state"
                );
            }
            Err(_) => {}
        }
    }
}

/// The default backoff of `kube`, whose jitter comes from outside of `system`.
fn backoff() -> ResetTimerBackoff<ExponentialBackoff> {
    let delays = ExponentialBuilder::new()
        .with_min_delay(Duration::from_millis(800))
        .with_max_delay(Duration::from_secs(30))
        .without_max_times()
        .with_jitter()
        .with_jitter_seed(random());
    ResetTimerBackoff::new(delays.into(), Duration::from_secs(120))
}

/// The API's message, if it denied access.
fn refusal(error: &watcher::Error) -> Option<&str> {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status)) if matches!(status.code, 401 | 403) => {
            Some(&status.message)
        }
        _ => None,
    }
}
