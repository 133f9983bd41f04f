//! The bus of a cluster: Google Pub/Sub, a topic an app.
//!
//! *Accepted* means that the service has it: it keeps a message for the topic's retention and delivers it at least once, in no order. A reader that settles
//! nothing has a subscription of its own, made when it begins and removed when it ends; what a killed process leaves is swept by the next. A durable
//! subscription keeps what is not acknowledged.
//!
//! The client library batches, leases and reconnects; what it leaves to us is here: a bound on what is on its way, rate-limited administration, few
//! connections for many readers, several streams for a loud one, and an eye on subscriptions that lost their topic. `PUBSUB_EMULATOR_HOST` points it at the
//! emulator.

mod admin;
mod catch_up;
mod clients;
mod durable;
mod failure;
mod feed;
mod message;
mod names;
mod publish;
mod pull;
mod replicas;
mod settings;
mod temporary;
mod watch;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures::{FutureExt, future::BoxFuture};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use settings::{DURABLE_ACK_DEADLINE, EMULATED_ACK_DEADLINE};
pub use settings::{EMULATOR_VARIABLE, PubSubSettings};

use crate::{AppName, Batch, Bus, BusError, Published, Reader, Start};
use admin::Admin;
use clients::Clients;
use durable::Reserved;
use failure::Failure;
use feed::{Beginning, Source, Told};
use names::Names;
use publish::Publishers;
use replicas::{Replicas, SWEEP_INTERVAL};
use temporary::{From, Maker};

/// How long closing waits for subscriptions to be removed; what is left then, the next start sweeps.
const CLOSE_WAIT: Duration = Duration::from_secs(10);

/// How soon housekeeping that failed is tried again.
const HOUSEKEEPING_RETRY: Duration = Duration::from_secs(5);

/// The Pub/Sub engine.
pub struct PubSub {
    core: Arc<Core>,
}

/// What its readers and publishers share.
struct Core {
    settings: PubSubSettings,
    clients: Arc<Clients>,
    maker: Arc<Maker>,
    publishers: Publishers,
    reserved: Reserved,
    tasks: TaskTracker,
    closing: CancellationToken,
}

impl PubSub {
    /// Makes ready to use a project; asks nothing of the service yet, which may be away.
    ///
    /// The TLS provider of the process has to be installed before.
    ///
    /// # Errors
    /// [`BusError::Settings`] where a setting cannot be meant, or the credentials cannot be used.
    pub async fn open(settings: PubSubSettings) -> Result<Self, BusError> {
        settings.check()?;
        let clients = Clients::new(&settings).await?;
        let admin = Admin::new(clients.topics.clone(), clients.subscriptions.clone(), &settings);
        let maker = Maker {
            admin: Arc::new(admin),
            names: Names::new(&settings.project, &settings.replica),
            replicas: Replicas::default(),
            begins_with_backlog: settings.emulator.is_some(),
            removals: TaskTracker::new(),
        };
        let core = Core {
            publishers: Publishers::new(clients.publisher.clone(), &settings),
            clients: Arc::new(clients),
            maker: Arc::new(maker),
            reserved: Reserved::default(),
            tasks: TaskTracker::new(),
            closing: CancellationToken::new(),
            settings,
        };
        Ok(Self { core: Arc::new(core) })
    }

    /// Keeps house for a process that reads, until [`close`](Self::close): shows that this replica lives, and sweeps what it left when it was killed and what
    /// replicas did that have shown no life for ten minutes.
    pub async fn keep_house(&self) {
        let Maker {
            admin, names, replicas, ..
        } = &*self.core.maker;
        let keep = async {
            loop {
                let swept = async {
                    replicas.renew(admin, names).await?;
                    replicas.sweep(admin, names).await
                };
                let wait = match swept.await {
                    Ok(_) => SWEEP_INTERVAL,
                    Err(failure) => {
                        tracing::debug!(?failure, "housekeeping to be tried again");
                        HOUSEKEEPING_RETRY
                    }
                };
                tokio::time::sleep(wait).await;
            }
        };
        let _: Option<()> = self.core.closing.run_until_cancelled(keep).await;
    }

    /// Ends the readers and removes their subscriptions, for ten seconds at most.
    pub async fn close(&self) {
        let Core {
            closing, tasks, maker, ..
        } = &*self.core;
        closing.cancel();
        let removed = async {
            tasks.close();
            tasks.wait().await;
            maker.removals.close();
            maker.removals.wait().await;
            if let Err(failure) = maker.replicas.bow_out(&maker.admin, &maker.names).await {
                tracing::debug!(?failure, "a sign of life is left to the sweep");
            }
        };
        if tokio::time::timeout(CLOSE_WAIT, removed).await.is_err() {
            tracing::warn!("some subscriptions were not removed in time: the next start does");
        }
    }
}

impl Core {
    /// The topics' beginning: nothing older is kept.
    fn beginning(&self, now: Published) -> Published {
        now.earlier_by(self.settings.retention)
    }

    /// Publishes a batch to a topic that exists.
    async fn publish_once(&self, batch: &Batch) -> Result<(), Failure> {
        let topic = self.maker.names.topic(&batch.origin.app);
        self.publishers.publish(&topic, batch).await
    }

    async fn publish(&self, batch: &Batch) -> Result<(), BusError> {
        publish::check(batch)?;
        let mut published = self.publish_once(batch).await;
        if published == Err(Failure::NotFound) {
            let topic = self.maker.names.topic(&batch.origin.app);
            let made = self.maker.admin.create_topic(&topic).await;
            made.map_err(Failure::into_bus_error)?;
            published = self.publish_once(batch).await;
        }
        published.map_err(Failure::into_bus_error)
    }

    async fn follow(self: &Arc<Self>, app: &AppName, start: Start) -> Result<Reader, BusError> {
        let now = Published::now();
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
            floor: if start == Start::Now { Published(0) } else { since },
            since,
            told,
        };
        Ok(feed::start(self, app.clone(), Source::Temporary(temporary), beginning))
    }

    async fn subscribe(self: &Arc<Self>, app: &AppName, name: &str) -> Result<Reader, BusError> {
        let durable = self.reserved.open(&self.maker, app, name).await?;
        let beginning = Beginning {
            floor: Published(0),
            since: Published::now(),
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

    /// A topic goes with the durable subscriptions of its app; those of readers go with the readers.
    async fn remove(&self, app: &AppName) -> Result<(), Failure> {
        let Maker { admin, names, .. } = &*self.maker;
        for subscription in admin.list_subscriptions(&names.project()).await? {
            if names.durable_app(&subscription).as_ref() == Some(app) {
                admin.delete_subscription(&subscription).await?;
            }
        }
        admin.delete_topic(&names.topic(app)).await
    }
}

fn unknown(app: &AppName, failure: Failure) -> BusError {
    match failure {
        Failure::NotFound => BusError::UnknownApp(app.clone()),
        failure => failure.into_bus_error(),
    }
}

impl Bus for PubSub {
    fn create<'a>(&'a self, app: &'a AppName) -> BoxFuture<'a, Result<(), BusError>> {
        let Maker { admin, names, .. } = &*self.core.maker;
        let topic = names.topic(app);
        async move { admin.create_topic(&topic).await.map_err(Failure::into_bus_error) }.boxed()
    }

    fn publish(&self, batch: Batch) -> BoxFuture<'_, Result<(), BusError>> {
        async move { self.core.publish(&batch).await }.boxed()
    }

    fn follow<'a>(&'a self, app: &'a AppName, start: Start) -> BoxFuture<'a, Result<Reader, BusError>> {
        self.core.follow(app, start).boxed()
    }

    fn subscribe<'a>(&'a self, app: &'a AppName, name: &'a str) -> BoxFuture<'a, Result<Reader, BusError>> {
        self.core.subscribe(app, name).boxed()
    }

    fn ensure_subscription<'a>(&'a self, app: &'a AppName, name: &'a str) -> BoxFuture<'a, Result<(), BusError>> {
        async move {
            match self.core.reserved.open(&self.core.maker, app, name).await {
                Ok(_) | Err(BusError::Subscribed(_)) => Ok(()),
                Err(error) => Err(error),
            }
        }
        .boxed()
    }

    fn unsubscribe<'a>(&'a self, app: &'a AppName, name: &'a str) -> BoxFuture<'a, Result<(), BusError>> {
        let Maker { admin, names, .. } = &*self.core.maker;
        let subscription = names.durable(app, name);
        async move {
            let deleted = admin.delete_subscription(&subscription).await;
            deleted.map_err(Failure::into_bus_error)
        }
        .boxed()
    }

    fn apps(&self) -> BoxFuture<'_, Result<Vec<AppName>, BusError>> {
        let Maker { admin, names, .. } = &*self.core.maker;
        async move {
            let topics = admin.list_topics(&names.project()).await;
            let topics = topics.map_err(Failure::into_bus_error)?;
            let mut apps: Vec<AppName> = topics.iter().filter_map(|topic| names.app(topic)).collect();
            apps.sort();
            Ok(apps)
        }
        .boxed()
    }

    fn subscribed(&self) -> BoxFuture<'_, Result<Vec<AppName>, BusError>> {
        let Maker { admin, names, .. } = &*self.core.maker;
        async move {
            let all = admin.list_subscriptions(&names.project()).await;
            let all = all.map_err(Failure::into_bus_error)?;
            let apps: BTreeSet<AppName> = all.iter().filter_map(|name| names.durable_app(name)).collect();
            Ok(apps.into_iter().collect())
        }
        .boxed()
    }

    fn remove<'a>(&'a self, app: &'a AppName) -> BoxFuture<'a, Result<(), BusError>> {
        async move { self.core.remove(app).await.map_err(Failure::into_bus_error) }.boxed()
    }

    fn check(&self) -> BoxFuture<'_, Result<(), BusError>> {
        let Maker { admin, names, .. } = &*self.core.maker;
        async move {
            let asked = admin.has_topic(&names.life_topic()).await;
            asked.map(drop).map_err(Failure::into_bus_error)
        }
        .boxed()
    }
}
