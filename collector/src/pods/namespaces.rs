//! Which namespaces are collected, where a selector chooses them.

use std::{collections::HashSet, time::Duration};

use futures::{FutureExt, future::BoxFuture};
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, api::ListParams};
use tokio::time::{Instant, sleep_until, timeout};

use crate::retry::Backoff;

/// The namespaces are listed this often: a label that changes is noticed within it.
const LIST_EVERY: Duration = Duration::from_secs(60);

/// And this soon after a pod of one that is not known: a new one is noticed within it.
const LIST_SOON: Duration = Duration::from_secs(2);

/// A list that takes longer has failed.
const LIST_WAIT: Duration = Duration::from_secs(30);

/// The first wait after a list failed.
const RETRY_FIRST: Duration = Duration::from_millis(100);

/// The longest.
const RETRY_MOST: Duration = Duration::from_secs(10);

/// The namespaces that a label selector chooses; without one, all.
pub struct Namespaces {
    choice: Option<Choice>,
}

struct Choice {
    client: kube::Client,
    selector: String,
    /// `None`: not listed yet.
    chosen: Option<HashSet<String>>,
    /// Not chosen at the last list.
    unknown: HashSet<String>,
    due: Instant,
    listed: Instant,
    backoff: Backoff,
    list: Option<BoxFuture<'static, Result<HashSet<String>, String>>>,
}

impl Namespaces {
    /// Chooses by this selector.
    pub fn new(client: kube::Client, selector: Option<&str>) -> Self {
        let choice = selector.map(|selector| Choice {
            client,
            selector: selector.to_owned(),
            chosen: None,
            unknown: HashSet::new(),
            due: Instant::now(),
            listed: Instant::now(),
            backoff: Backoff::new(RETRY_FIRST, RETRY_MOST),
            list: None,
        });
        Self { choice }
    }

    /// Whether it is known which they are.
    pub fn are_known(&self) -> bool {
        self.choice.as_ref().is_none_or(|choice| choice.chosen.is_some())
    }

    /// Whether a pod of this one is collected. One that was not there at the last list is asked about.
    pub fn has(&mut self, namespace: &str) -> bool {
        let Some(choice) = &mut self.choice else { return true };
        if choice.chosen.as_ref().is_some_and(|chosen| chosen.contains(namespace)) {
            return true;
        }
        // Once a list: a namespace that is not chosen may have many pods.
        if choice.unknown.insert(namespace.to_owned()) {
            choice.due = choice.due.min(choice.listed + LIST_SOON);
        }
        false
    }

    /// Returns when the chosen ones have changed. Never without a selector.
    ///
    /// *Cancel safety*: nothing is lost when the call is dropped.
    pub async fn changed(&mut self) {
        let Some(choice) = &mut self.choice else {
            return std::future::pending().await;
        };
        while !choice.look().await {}
    }
}

impl Choice {
    /// Lists them when that is due. Returns whether they changed.
    async fn look(&mut self) -> bool {
        if self.list.is_none() {
            sleep_until(self.due).await;
        }
        let (client, selector) = (&self.client, &self.selector);
        let list = self
            .list
            .get_or_insert_with(|| list(client.clone(), selector.clone()).boxed());
        let listed = list.await;
        self.list = None;
        match listed {
            Ok(chosen) => {
                self.backoff.reset();
                self.listed = Instant::now();
                self.due = self.listed + LIST_EVERY;
                let chosen = Some(chosen);
                let is_changed = self.chosen != chosen;
                self.chosen = chosen;
                is_changed
            }
            Err(error) => {
                tracing::warn!(error, "namespaces cannot be listed for now");
                self.due = Instant::now() + self.backoff.next_delay();
                false
            }
        }
    }
}

async fn list(client: kube::Client, selector: String) -> Result<HashSet<String>, String> {
    let api = Api::<Namespace>::all(client);
    let params = ListParams::default().labels(&selector);
    let listed = timeout(LIST_WAIT, api.list(&params)).await;
    let listed = listed
        .map_err(|_| "no answer".to_owned())?
        .map_err(|error| error.to_string())?;
    Ok(listed
        .items
        .into_iter()
        .filter_map(|namespace| namespace.metadata.name)
        .collect())
}
