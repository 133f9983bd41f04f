//! The bus of a cluster: Google Pub/Sub, with one topic per app.
//!
//! *Accepted* means that the service has stored the message: it keeps it for the topic's retention
//! and delivers it at least once, unordered. A reader without acknowledgement has a temporary
//! subscription, which is deleted with the reader; subscriptions of a killed process are deleted by
//! the next one. A durable subscription keeps unacknowledged messages.
//!
//! The client library batches, extends leases and reconnects: [`service`] is the engine's interface
//! to it, [`google`] the adapter. The engine adds a bound on bytes in flight, rate-limited administration, few connections for many readers, several streams for a
//! busy one, and monitoring of subscriptions that lost their topic. `PUBSUB_EMULATOR_HOST` selects
//! the emulator.
//!
//! A project holds at most 10,000 topics, so there may be several projects: [`projects`] holds
//! them, [`app_placement`] decides which one has an app's topic, and [`multi_project_reader`]
//! reads an app whose topic exists in several. The folder depends on the bus trait and the batch
//! format only.

mod admin_client;
mod advice;
mod app_placement;
mod attachment;
mod catch_up;
mod durable;
mod failure;
mod first_marker;
mod google;
mod message;
mod multi_project_reader;
mod names;
mod project;
mod projects;
mod publish;
mod pull;
mod rate_limit;
mod reader_task;
mod replicas;
pub mod service;
mod settings;
mod subscription_factory;
mod temporary;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures::{
    FutureExt,
    future::{BoxFuture, join_all},
};

pub use settings::{EMULATOR_VARIABLE, PubSubSettings};

use crate::{AppName, Batch, Bus, BusError, BusOperation, PublishTime, Reader, Start};
use google::Google;
use multi_project_reader::Target;
use projects::Projects;
use service::Service;

/// How long closing waits for the removal of subscriptions. The next start removes the rest.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// The Pub/Sub engine.
pub struct PubSub {
    projects: Arc<Projects>,
}

impl PubSub {
    /// Opens the engine without contacting the service, which may be unavailable.
    ///
    /// The process must have installed its TLS provider.
    ///
    /// # Errors
    /// [`BusError::Settings`] for invalid settings or credentials.
    pub async fn open(settings: PubSubSettings) -> Result<Self, BusError> {
        settings.check()?;
        let service = Arc::new(Google::new(&settings).await?);
        Self::with_service(settings, service)
    }

    /// Opens the engine on a service that stands in for Google's.
    ///
    /// # Errors
    /// [`BusError::Settings`] for invalid settings.
    #[doc(hidden)]
    pub fn with_service(settings: PubSubSettings, service: Arc<dyn Service>) -> Result<Self, BusError> {
        settings.check()?;
        let projects = Arc::new(Projects::new(settings, service));
        Ok(Self { projects })
    }

    async fn ensure(&self, app: &AppName, name: &str) -> Result<(), BusError> {
        let found = self.projects.locate_for_reader(app).await?;
        for (index, since) in multi_project_reader::subscription_starts(&self.projects, app, name, &found).await? {
            match self.projects.list[index].ensure(app, name, since).await {
                Ok(()) | Err(BusError::SubscriptionInUse(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn read(&self, app: &AppName, target: Target) -> Result<Reader, BusError> {
        let found = self.projects.locate_for_reader(app).await?;
        multi_project_reader::read(&self.projects, app, target, found).await
    }
}

impl Bus for PubSub {
    fn create<'a>(&'a self, app: &'a AppName) -> BoxFuture<'a, Result<(), BusError>> {
        self.projects.create(app).boxed()
    }

    fn publish(&self, batch: Batch) -> BoxFuture<'_, Result<(), BusError>> {
        async move { self.projects.publish(&batch).await }.boxed()
    }

    fn follow<'a>(&'a self, app: &'a AppName, start: Start) -> BoxFuture<'a, Result<Reader, BusError>> {
        self.read(app, Target::App(start)).boxed()
    }

    fn subscribe<'a>(&'a self, app: &'a AppName, name: &'a str) -> BoxFuture<'a, Result<Reader, BusError>> {
        self.read(app, Target::Subscription(name.to_owned())).boxed()
    }

    fn ensure_subscription<'a>(&'a self, app: &'a AppName, name: &'a str) -> BoxFuture<'a, Result<(), BusError>> {
        self.ensure(app, name).boxed()
    }

    fn unsubscribe<'a>(&'a self, app: &'a AppName, name: &'a str) -> BoxFuture<'a, Result<(), BusError>> {
        let removed = self.projects.call_each(move |project| project.unsubscribe(app, name));
        async move { removed.await.map(drop) }.boxed()
    }

    fn apps(&self) -> BoxFuture<'_, Result<Vec<AppName>, BusError>> {
        let listed = self.projects.call_each(|project| project.apps());
        async move { Ok(sorted(listed.await?)) }.boxed()
    }

    fn apps_with_subscriptions(&self) -> BoxFuture<'_, Result<Vec<AppName>, BusError>> {
        let listed = self.projects.call_each(|project| project.apps_with_subscriptions());
        async move { Ok(sorted(listed.await?)) }.boxed()
    }

    fn remove<'a>(&'a self, app: &'a AppName) -> BoxFuture<'a, Result<(), BusError>> {
        let removed = self.projects.call_each(move |project| project.remove(app));
        async move { removed.await.map(drop) }.boxed()
    }

    fn now(&self) -> Option<PublishTime> {
        self.projects.shared.clock.now()
    }

    fn check(&self) -> BoxFuture<'_, Result<(), BusError>> {
        self.projects.check().boxed()
    }

    fn run_housekeeping(&self) -> BoxFuture<'_, ()> {
        async move {
            let housekeeping = join_all(self.projects.list.iter().map(|project| project.run_housekeeping()));
            let closing = &self.projects.shared.closing;
            let _: Option<Vec<()>> = closing.run_until_cancelled(housekeeping).await;
        }
        .boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        async move {
            let Projects { list, shared, .. } = &*self.projects;
            shared.closing.cancel();
            let removed = async {
                shared.tasks.close();
                shared.tasks.wait().await;
                join_all(list.iter().map(|project| project.deregister())).await;
            };
            if tokio::time::timeout(CLOSE_TIMEOUT, removed).await.is_err() {
                tracing::warn!("subscription removal timed out, the next start removes them");
            }
        }
        .boxed()
    }

    fn advice(&self, operation: BusOperation, error: &BusError) -> String {
        advice::advice(&self.projects.shared.settings, operation, error)
    }
}

fn sorted(apps: Vec<Vec<AppName>>) -> Vec<AppName> {
    let all: BTreeSet<AppName> = apps.into_iter().flatten().collect();
    all.into_iter().collect()
}
