//! Deletes topics that no app uses (delivery rule 23): no namespace or pod of the app is left, no
//! drain subscribes to it, and its lines are older than the retention.

use std::{sync::Arc, time::Duration};

use bus::{AppName, Bus};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::{Api, Client, Resource, ResourceExt, api::ListParams, core::PartialObjectMeta};
use serde::de::DeserializeOwned;
use system::{
    clock::{Instant, steady},
    collections::{HashMap, HashSet},
    random::random_range,
};
use tokio::time::timeout;

use crate::config::{AppFrom, TopicGc};
use causes::kubernetes::describe as describe_api_error;

/// Page size of lists.
const PAGE: u32 = 500;

/// Time limit for one page.
const LIST_WAIT: Duration = Duration::from_secs(60);

/// Deletes unused topics.
pub(crate) struct TopicCollector {
    settings: TopicGc,
    app_from: AppFrom,
    client: Client,
    bus: Arc<dyn Bus>,
    unused_since: HashMap<AppName, Instant>,
}

impl TopicCollector {
    pub(crate) fn new(settings: TopicGc, app_from: AppFrom, client: Client, bus: Arc<dyn Bus>) -> Self {
        Self {
            settings,
            app_from,
            client,
            bus,
            unused_since: HashMap::default(),
        }
    }

    /// Runs forever, at jittered intervals. Failures are retried at the next interval.
    pub(crate) async fn run(mut self) {
        loop {
            // Jitter keeps collectors that started together apart.
            let wait = self.settings.interval.mul_f64(random_range(0.5..=1.5));
            tokio::time::sleep(wait).await;
            if let Err(error) = self.collect().await {
                tracing::warn!(%error, "topic garbage collection failed");
            }
        }
    }

    async fn collect(&mut self) -> Result<(), String> {
        let describe = |error: bus::BusError| error.to_string();
        // Topics are listed before the cluster, so that an app created in between counts as
        // existing.
        let topics = self.bus.apps().await.map_err(describe)?;
        let drained: HashSet<AppName> = self
            .bus
            .apps_with_subscriptions()
            .await
            .map_err(describe)?
            .into_iter()
            .collect();
        let existing_apps = self.existing_apps().await?;
        let now = steady();
        let before = std::mem::take(&mut self.unused_since);
        for app in topics {
            if existing_apps.contains(app.as_str()) || drained.contains(&app) {
                continue;
            }
            let since = before.get(&app).copied().unwrap_or(now);
            if now.duration_since(since) < self.settings.unused_for {
                self.unused_since.insert(app, since);
                continue;
            }
            self.bus.remove(&app).await.map_err(describe)?;
            tracing::info!(%app, "unused topic deleted");
        }
        Ok(())
    }

    /// Returns the names of the apps in the cluster.
    async fn existing_apps(&self) -> Result<HashSet<String>, String> {
        match &self.app_from {
            AppFrom::Namespace => {
                let namespaces = list::<Namespace>(&self.client, ListParams::default()).await?;
                Ok(namespaces.iter().map(ResourceExt::name_any).collect())
            }
            AppFrom::Label(key) => {
                let pods = list::<Pod>(&self.client, ListParams::default().labels(key)).await?;
                let apps = pods.iter().filter_map(|pod| pod.labels().get(key).cloned());
                Ok(apps.collect())
            }
        }
    }
}

/// Lists metadata only.
async fn list<K>(client: &Client, params: ListParams) -> Result<Vec<PartialObjectMeta<K>>, String>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    let api = Api::<K>::all(client.clone());
    let mut params = params.limit(PAGE);
    let mut all = Vec::new();
    loop {
        let page = timeout(LIST_WAIT, api.list_metadata(&params)).await;
        let page = page
            .map_err(|_| "no response from the API".to_owned())?
            .map_err(|error| describe_api_error(&error))?;
        all.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params.continue_token = Some(token),
            None => return Ok(all),
        }
    }
}
