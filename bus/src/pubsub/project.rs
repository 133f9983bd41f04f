//! One project: its topics, its subscriptions, and who reads them.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    admin::{Admin, Limit},
    clients::Clients,
    durable::Reserved,
    failure::Failure,
    feed::{self, Beginning, Source, Told},
    names::Names,
    publish::{Budget, Publishers},
    replicas::{Replicas, SWEEP_INTERVAL},
    settings::{DURABLE_ACK_DEADLINE, EMULATED_ACK_DEADLINE, PubSubSettings},
    temporary::{From, Maker},
};
use crate::{AppName, Batch, BusError, PublishTime, Reader, Start};

/// How soon housekeeping that failed is tried again.
const HOUSEKEEPING_RETRY: Duration = Duration::from_secs(5);

/// A project, and what its readers and publishers share.
pub(super) struct Project {
    name: String,
    pub(super) settings: Arc<PubSubSettings>,
    pub(super) clients: Arc<Clients>,
    pub(super) maker: Arc<Maker>,
    publishers: Publishers,
    reserved: Reserved,
    pub(super) tasks: TaskTracker,
    pub(super) closing: CancellationToken,
}

impl Project {
    pub(super) fn new(
        name: &str,
        settings: &Arc<PubSubSettings>,
        clients: &Arc<Clients>,
        (limit, budget): (&Arc<Limit>, &Budget),
        (tasks, closing): (TaskTracker, CancellationToken),
    ) -> Self {
        let admin = Admin::new(clients, settings, Arc::clone(limit));
        let maker = Maker {
            admin: Arc::new(admin),
            names: Names::new(name, &settings.replica),
            replicas: Replicas::default(),
            begins_with_backlog: settings.emulator.is_some(),
            removals: TaskTracker::new(),
        };
        Self {
            name: name.to_owned(),
            publishers: Publishers::new(clients.publisher.clone(), budget.clone(), settings.compression),
            clients: Arc::clone(clients),
            maker: Arc::new(maker),
            reserved: Reserved::default(),
            settings: Arc::clone(settings),
            tasks,
            closing,
        }
    }

    /// Its id.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Shows that this replica lives, and sweeps what dead ones left, for ever.
    pub(super) async fn run_housekeeping(&self) {
        let Maker {
            admin, names, replicas, ..
        } = &*self.maker;
        loop {
            let swept = async {
                replicas.renew(admin, names).await?;
                replicas.sweep(admin, names).await
            };
            let wait = match swept.await {
                Ok(_) => SWEEP_INTERVAL,
                Err(failure) => {
                    tracing::debug!(project = self.name, ?failure, "housekeeping to be tried again");
                    HOUSEKEEPING_RETRY
                }
            };
            tokio::time::sleep(wait).await;
        }
    }

    /// Removes what this process has there, its readers having ended.
    pub(super) async fn leave(&self) {
        let Maker {
            admin,
            names,
            replicas,
            removals,
            ..
        } = &*self.maker;
        removals.close();
        removals.wait().await;
        if let Err(failure) = replicas.bow_out(admin, names).await {
            tracing::debug!(project = self.name, ?failure, "a sign of life is left to the sweep");
        }
    }

    /// The topics' beginning: nothing older is kept.
    pub(super) fn beginning(&self, now: PublishTime) -> PublishTime {
        now.earlier_by(self.settings.retention)
    }

    /// Whether it has an app's topic.
    pub(super) async fn has(&self, app: &AppName) -> Result<bool, Failure> {
        let Maker { admin, names, .. } = &*self.maker;
        admin.has_topic(&names.topic(app)).await
    }

    /// Makes an app's topic. One that exists is success.
    pub(super) async fn create(&self, app: &AppName) -> Result<(), Failure> {
        let Maker { admin, names, .. } = &*self.maker;
        admin.create_topic(&names.topic(app)).await
    }

    /// Publishes a batch to a topic that exists.
    pub(super) async fn publish(&self, batch: &Batch) -> Result<(), Failure> {
        let topic = self.maker.names.topic(&batch.metadata.app);
        self.publishers.publish(&topic, batch).await
    }

    pub(super) async fn follow(self: &Arc<Self>, app: &AppName, start: Start) -> Result<Reader, BusError> {
        let now = PublishTime::now();
        let beginning = self.beginning(now);
        let (from, since, told) = match start {
            Start::Now => (From::Now, now, Told::AtOnce),
            Start::At(time) => (From::Time(time.max(beginning)), time.max(beginning), Told::WhenCome),
            Start::Oldest => (From::Time(beginning), beginning, Told::WhenCome),
        };
        let temporary = self
            .maker
            .make(app, from)
            .await
            .map_err(|failure| unknown(app, failure))?;
        let beginning = Beginning {
            // Where a new subscription begins is the service's to say, by its own clock.
            floor: if start == Start::Now { PublishTime(0) } else { since },
            since,
            told,
        };
        Ok(feed::start(self, app.clone(), Source::Temporary(temporary), beginning))
    }

    /// Reads a durable subscription, made where it does not exist, from this time on, or from now.
    pub(super) async fn subscribe(
        self: &Arc<Self>,
        app: &AppName,
        name: &str,
        since: Option<PublishTime>,
    ) -> Result<Reader, BusError> {
        let durable = self.reserved.open(&self.maker, app, name, since).await?;
        let beginning = Beginning {
            floor: PublishTime(0),
            since: PublishTime::now(),
            told: Told::Never,
        };
        // Only the emulator has a backlog to begin with.
        let ack_deadline = if self.maker.begins_with_backlog {
            EMULATED_ACK_DEADLINE
        } else {
            DURABLE_ACK_DEADLINE
        };
        let reader = feed::start(self, app.clone(), Source::Durable(durable), beginning);
        Ok(reader.with_ack_deadline(ack_deadline))
    }

    /// The same without reading it.
    pub(super) async fn ensure(&self, app: &AppName, name: &str, since: Option<PublishTime>) -> Result<(), BusError> {
        self.reserved.open(&self.maker, app, name, since).await.map(drop)
    }

    /// Whether there is such a durable subscription.
    pub(super) async fn has_subscription(&self, app: &AppName, name: &str) -> Result<bool, Failure> {
        let Maker { admin, names, .. } = &*self.maker;
        admin.is_attached(&names.durable(app, name)).await
    }

    /// Removes a durable subscription. One that does not exist is success.
    pub(super) async fn unsubscribe(&self, app: &AppName, name: &str) -> Result<(), Failure> {
        let Maker { admin, names, .. } = &*self.maker;
        admin.delete_subscription(&names.durable(app, name)).await
    }

    /// The apps that have a topic in it.
    pub(super) async fn apps(&self) -> Result<Vec<AppName>, Failure> {
        let Maker { admin, names, .. } = &*self.maker;
        let topics = admin.list_topics(&names.project()).await?;
        Ok(topics.iter().filter_map(|topic| names.app(topic)).collect())
    }

    /// The apps that have a durable subscription in it.
    pub(super) async fn subscribed(&self) -> Result<Vec<AppName>, Failure> {
        let Maker { admin, names, .. } = &*self.maker;
        let all = admin.list_subscriptions(&names.project()).await?;
        let apps: BTreeSet<AppName> = all.iter().filter_map(|name| names.durable_app(name)).collect();
        Ok(apps.into_iter().collect())
    }

    /// A topic goes with the durable subscriptions of its app; those of readers go with the readers.
    pub(super) async fn remove(&self, app: &AppName) -> Result<(), Failure> {
        let Maker { admin, names, .. } = &*self.maker;
        for subscription in admin.list_subscriptions(&names.project()).await? {
            if names.durable_app(&subscription).as_ref() == Some(app) {
                admin.delete_subscription(&subscription).await?;
            }
        }
        admin.delete_topic(&names.topic(app)).await
    }

    /// Whether it answers.
    pub(super) async fn check(&self) -> Result<(), Failure> {
        let Maker { admin, names, .. } = &*self.maker;
        admin.has_topic(&names.life_topic()).await.map(drop)
    }
}

fn unknown(app: &AppName, failure: Failure) -> BusError {
    match failure {
        Failure::NotFound => BusError::UnknownApp(app.clone()),
        failure => failure.into_bus_error(),
    }
}
