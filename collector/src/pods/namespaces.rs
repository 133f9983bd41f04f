//! Selects namespaces by label.

use std::time::Duration;

use futures::{FutureExt, future::BoxFuture};
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, api::ListParams};
use system::{
    clock::{Instant, steady},
    collections::HashSet,
};
use tokio::time::{sleep_until, timeout};

use crate::retry::Backoff;
use causes::kubernetes::describe;

/// Interval of lists: a changed label takes effect within it.
const LIST_INTERVAL: Duration = Duration::from_secs(60);

/// Delay of a list after a pod of an unknown namespace appeared.
const LIST_UNKNOWN_AFTER: Duration = Duration::from_secs(2);

/// Time limit for a list.
const LIST_TIMEOUT: Duration = Duration::from_secs(30);

/// Delay before the first retry.
const RETRY_FIRST: Duration = Duration::from_millis(100);

/// Longest delay between retries.
const RETRY_MAX: Duration = Duration::from_secs(10);

/// The namespaces that match a label selector; all of them without one.
pub struct Namespaces {
    selection: Option<Selection>,
}

struct Selection {
    client: kube::Client,
    selector: String,
    /// `None`: not listed yet.
    selected: Option<HashSet<String>>,
    /// Namespaces that the last list did not contain.
    unselected: HashSet<String>,
    due: Instant,
    listed: Instant,
    backoff: Backoff,
    list: Option<BoxFuture<'static, Result<HashSet<String>, String>>>,
}

impl Namespaces {
    /// Creates the selection.
    pub fn new(client: kube::Client, selector: Option<&str>) -> Self {
        let selection = selector.map(|selector| Selection {
            client,
            selector: selector.to_owned(),
            selected: None,
            unselected: HashSet::default(),
            due: steady(),
            listed: steady(),
            backoff: Backoff::new(RETRY_FIRST, RETRY_MAX),
            list: None,
        });
        Self { selection }
    }

    /// Returns whether the namespaces have been listed.
    pub fn is_ready(&self) -> bool {
        self.selection
            .as_ref()
            .is_none_or(|selection| selection.selected.is_some())
    }

    /// Returns whether pods of a namespace are collected. An unknown namespace triggers a list.
    pub fn is_selected(&mut self, namespace: &str) -> bool {
        let Some(selection) = &mut self.selection else {
            return true;
        };
        if selection
            .selected
            .as_ref()
            .is_some_and(|selected| selected.contains(namespace))
        {
            return true;
        }
        // Once per list, because an unselected namespace may have many pods.
        if selection.unselected.insert(namespace.to_owned()) {
            selection.due = selection.due.min(selection.listed + LIST_UNKNOWN_AFTER);
        }
        false
    }

    /// Returns when the selection has changed; never without a selector.
    ///
    /// *Cancel safety*: no change is lost.
    pub async fn changed(&mut self) {
        let Some(selection) = &mut self.selection else {
            return std::future::pending().await;
        };
        while !selection.list_when_due().await {}
    }
}

impl Selection {
    /// Lists the namespaces when that is due. Returns whether the selection changed.
    async fn list_when_due(&mut self) -> bool {
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
            Ok(selected) => {
                self.backoff.reset();
                self.listed = steady();
                self.due = self.listed + LIST_INTERVAL;
                let selected = Some(selected);
                let is_changed = self.selected != selected;
                self.selected = selected;
                is_changed
            }
            Err(error) => {
                tracing::warn!(error, "namespace list failed, retrying");
                self.due = steady() + self.backoff.next_delay();
                false
            }
        }
    }
}

async fn list(client: kube::Client, selector: String) -> Result<HashSet<String>, String> {
    let api = Api::<Namespace>::all(client);
    let params = ListParams::default().labels(&selector);
    let listed = timeout(LIST_TIMEOUT, api.list(&params)).await;
    let listed = listed
        .map_err(|_| "no response".to_owned())?
        .map_err(|error| describe(&error))?;
    Ok(listed
        .items
        .into_iter()
        .filter_map(|namespace| namespace.metadata.name)
        .collect())
}
