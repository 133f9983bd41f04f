//! What readers are shown of the Secrets, as they change.

use std::{collections::BTreeMap, mem, sync::Arc};

use futures::StreamExt;
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};

use crate::{
    Drains, Keys,
    key::StoredKey,
    kubernetes::objects::{self, Content},
};

/// By the Secret's name.
type Contents = BTreeMap<String, Content>;

/// What readers are shown.
pub(super) struct Shown {
    drains: watch::Sender<Arc<Drains>>,
    keys: watch::Sender<Arc<Keys>>,
    last: Mutex<Last>,
}

/// What is shown, as it came.
struct Last {
    contents: Contents,
    /// What a list that is still coming has brought.
    coming: Contents,
    /// Told when all has been read once, or that it may not be.
    read: Option<oneshot::Sender<Result<(), String>>>,
}

impl Shown {
    /// Nothing yet; and what says that all has been read once, or why it may not be.
    pub(super) fn new() -> (Self, oneshot::Receiver<Result<(), String>>) {
        let (told, read) = oneshot::channel();
        let shown = Self {
            drains: watch::Sender::default(),
            keys: watch::Sender::new(Arc::default()),
            last: Mutex::new(Last {
                contents: Contents::new(),
                coming: Contents::new(),
                read: Some(told),
            }),
        };
        (shown, read)
    }

    pub(super) fn drains(&self) -> watch::Receiver<Arc<Drains>> {
        self.drains.subscribe()
    }

    pub(super) fn keys(&self) -> watch::Receiver<Arc<Keys>> {
        self.keys.subscribe()
    }

    /// What keys are hashed under.
    pub(super) fn secret(&self) -> Option<[u8; 32]> {
        secret(&self.last.lock().contents)
    }

    fn see(&self, event: Event<Secret>) {
        let mut last = self.last.lock();
        let last = &mut *last;
        match event {
            Event::Init => last.coming.clear(),
            Event::InitApply(secret) => {
                if let Some((name, content)) = content(&secret, &mut last.contents) {
                    last.coming.insert(name, content);
                }
            }
            Event::InitDone => {
                last.contents = mem::take(&mut last.coming);
                self.show(&last.contents);
                last.read.take().map(|read| read.send(Ok(())));
            }
            Event::Apply(secret) => {
                if let Some((name, content)) = content(&secret, &mut last.contents) {
                    last.contents.insert(name, content);
                }
                self.show(&last.contents);
            }
            Event::Delete(secret) => {
                // Without its secret no key would be known: the last one holds until there is another.
                let name = secret.metadata.name.unwrap_or_default();
                if name != objects::SECRET_NAME {
                    last.contents.remove(&name);
                }
                self.show(&last.contents);
            }
        }
    }

    /// The API does not let us.
    fn refuse(&self, reason: &str) {
        let read = self.last.lock().read.take();
        read.map(|read| read.send(Err(reason.to_owned())));
    }

    /// Shows what has changed.
    fn show(&self, contents: &Contents) {
        let drains: Drains = contents
            .values()
            .flat_map(|content| match content {
                Content::Drains(drains) => drains.as_slice(),
                _ => &[],
            })
            .map(|drain| (drain.id, drain.clone()))
            .collect();
        self.drains.send_if_modified(|shown| {
            let changed = **shown != drains;
            if changed {
                *shown = Arc::new(drains);
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
        // Without the secret no key is good.
        let keys = secret(contents).map_or_else(Keys::default, |secret| Keys::new(&secret, &keys));
        self.keys.send_if_modified(|shown| {
            let changed = !shown.same(&keys);
            if changed {
                *shown = Arc::new(keys);
            }
            changed
        });
    }
}

fn secret(contents: &Contents) -> Option<[u8; 32]> {
    match contents.get(objects::SECRET_NAME) {
        Some(Content::Secret(secret)) => Some(*secret),
        _ => None,
    }
}

/// What a Secret holds. One that is damaged is told, and what was good of it stays.
fn content(secret: &Secret, last: &mut Contents) -> Option<(String, Content)> {
    let name = secret.metadata.name.clone()?;
    match objects::read(secret) {
        Ok(content) => content.map(|content| (name, content)),
        Err(why) => {
            tracing::error!(
                secret = name,
                why,
                "a Secret of the registry cannot be read: what was last read of it holds"
            );
            last.remove(&name).map(|content| (name, content))
        }
    }
}

/// Watches until it is dropped.
pub(super) async fn watch(api: Api<Secret>, shown: Arc<Shown>) {
    let ours = watcher::Config::default().labels(&format!("{}={}", objects::LABEL, objects::WATCHED));
    let mut events = watcher(api, ours).default_backoff().boxed();
    let mut failed = false;
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => {
                failed = false;
                shown.see(event);
            }
            Err(error) if !failed => {
                failed = true;
                if let Some(reason) = refusal(&error) {
                    shown.refuse(reason);
                }
                tracing::error!(%error, "the registry's Secrets cannot be watched: what was last seen of them holds");
            }
            Err(_) => {}
        }
    }
}

/// The API's words, where it was the one that refused.
fn refusal(error: &watcher::Error) -> Option<&str> {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status)) if matches!(status.code, 401 | 403) => {
            Some(&status.message)
        }
        _ => None,
    }
}
