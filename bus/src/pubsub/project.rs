//! One project: its topics and subscriptions.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    admin_client::Admin,
    durable::Reservations,
    failure::Failure,
    names::Names,
    publish::{Budget, Publisher},
    rate_limit::RateLimit,
    replicas::{Replicas, SWEEP_INTERVAL},
    service::Service,
    settings::PubSubSettings,
    subscription_factory::SubscriptionFactory,
};
use crate::{AppName, Batch, BusClock, BusError, PublishTime};

/// Delay before housekeeping that failed is retried.
const HOUSEKEEPING_RETRY: Duration = Duration::from_secs(5);

/// What all projects share.
pub(super) struct Shared {
    pub(super) settings: PubSubSettings,
    pub(super) service: Arc<dyn Service>,
    pub(super) limit: Arc<RateLimit>,
    pub(super) budget: Budget,
    /// The time of the service, from the messages of all subscriptions.
    pub(super) clock: Arc<BusClock>,
    /// Tasks of readers.
    pub(super) tasks: TaskTracker,
    /// Cancelled when the engine closes.
    pub(super) closing: CancellationToken,
}

/// A project.
pub(super) struct Project {
    name: String,
    pub(super) shared: Arc<Shared>,
    pub(super) factory: Arc<SubscriptionFactory>,
    pub(super) reservations: Reservations,
    publisher: Publisher,
}

impl Project {
    pub(super) fn new(name: &str, shared: &Arc<Shared>) -> Self {
        let Shared {
            settings,
            service,
            limit,
            budget,
            ..
        } = &**shared;
        let factory = SubscriptionFactory {
            admin: Arc::new(Admin::new(Arc::clone(service), settings, Arc::clone(limit))),
            names: Names::new(name, &settings.replica),
            replicas: Replicas::default(),
            starts_with_backlog: settings.emulator.is_some(),
            removals: TaskTracker::new(),
        };
        Self {
            name: name.to_owned(),
            publisher: Publisher::new(Arc::clone(service), budget.clone(), settings.compression),
            factory: Arc::new(factory),
            reservations: Reservations::default(),
            shared: Arc::clone(shared),
        }
    }

    /// Returns the project's id.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Renews this replica's heartbeat and removes orphaned subscriptions, forever.
    pub(super) async fn run_housekeeping(&self) {
        let SubscriptionFactory {
            admin, names, replicas, ..
        } = &*self.factory;
        loop {
            let swept = async {
                replicas.renew(admin, names).await?;
                replicas.sweep(admin, names).await
            };
            let wait = match swept.await {
                Ok(_) => SWEEP_INTERVAL,
                Err(failure) => {
                    tracing::debug!(project = self.name, ?failure, "housekeeping failed");
                    HOUSEKEEPING_RETRY
                }
            };
            tokio::time::sleep(wait).await;
        }
    }

    /// Removes this process's subscriptions and its heartbeat, after its readers have ended.
    pub(super) async fn deregister(&self) {
        let SubscriptionFactory {
            admin,
            names,
            replicas,
            removals,
            ..
        } = &*self.factory;
        removals.close();
        removals.wait().await;
        if let Err(failure) = replicas.deregister(admin, names).await {
            tracing::debug!(project = self.name, ?failure, "heartbeat removal failed");
        }
    }

    /// Returns the time of the service. Before it has been seen, this machine's clock stands in.
    pub(super) fn now(&self) -> PublishTime {
        self.shared.clock.now().unwrap_or_else(PublishTime::now)
    }

    /// Returns the time of the oldest message that topics still store.
    pub(super) fn oldest(&self) -> PublishTime {
        self.now().earlier_by(self.shared.settings.retention)
    }

    /// Returns whether the project has an app's topic.
    pub(super) async fn has(&self, app: &AppName) -> Result<bool, Failure> {
        let SubscriptionFactory { admin, names, .. } = &*self.factory;
        admin.has_topic(&names.topic(app)).await
    }

    /// Creates an app's topic. An existing topic is success.
    pub(super) async fn create(&self, app: &AppName) -> Result<(), Failure> {
        let SubscriptionFactory { admin, names, .. } = &*self.factory;
        admin.create_topic(&names.topic(app)).await
    }

    /// Publishes a batch to an existing topic.
    pub(super) async fn publish(&self, batch: &Batch) -> Result<(), Failure> {
        let topic = self.factory.names.topic(&batch.metadata.app);
        self.publisher.publish(&topic, batch).await
    }

    /// Creates a durable subscription if it does not exist. It starts at `since`, or with new
    /// messages.
    pub(super) async fn ensure(&self, app: &AppName, name: &str, since: Option<PublishTime>) -> Result<(), BusError> {
        let opened = self.reservations.open(&self.factory, app, name, since);
        opened.await.map(drop)
    }

    /// Returns whether the durable subscription exists.
    pub(super) async fn has_subscription(&self, app: &AppName, name: &str) -> Result<bool, Failure> {
        let SubscriptionFactory { admin, names, .. } = &*self.factory;
        admin.is_attached(&names.durable(app, name)).await
    }

    /// Deletes a durable subscription. A missing subscription is success.
    pub(super) async fn unsubscribe(&self, app: &AppName, name: &str) -> Result<(), Failure> {
        let SubscriptionFactory { admin, names, .. } = &*self.factory;
        admin.delete_subscription(&names.durable(app, name)).await
    }

    /// Lists the apps that have a topic.
    pub(super) async fn apps(&self) -> Result<Vec<AppName>, Failure> {
        let SubscriptionFactory { admin, names, .. } = &*self.factory;
        let topics = admin.list_topics(&names.project()).await?;
        Ok(topics.iter().filter_map(|topic| names.app(topic)).collect())
    }

    /// Lists the apps that have a durable subscription.
    pub(super) async fn apps_with_subscriptions(&self) -> Result<Vec<AppName>, Failure> {
        let SubscriptionFactory { admin, names, .. } = &*self.factory;
        let all = admin.list_subscriptions(&names.project()).await?;
        let apps: BTreeSet<AppName> = all.iter().filter_map(|name| names.durable_app(name)).collect();
        Ok(apps.into_iter().collect())
    }

    /// Deletes an app's topic and durable subscriptions. Readers delete their own subscriptions.
    pub(super) async fn remove(&self, app: &AppName) -> Result<(), Failure> {
        let SubscriptionFactory { admin, names, .. } = &*self.factory;
        for subscription in admin.list_subscriptions(&names.project()).await? {
            if names.durable_app(&subscription).as_ref() == Some(app) {
                admin.delete_subscription(&subscription).await?;
            }
        }
        admin.delete_topic(&names.topic(app)).await
    }

    /// Checks that the service answers.
    pub(super) async fn check(&self) -> Result<(), Failure> {
        let SubscriptionFactory { admin, names, .. } = &*self.factory;
        admin.has_topic(&names.heartbeat_topic()).await.map(drop)
    }
}
