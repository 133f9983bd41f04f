//! The bus of a cluster: Google Pub/Sub, a topic an app.
//!
//! *Accepted* means that the service has it: it keeps a message for the topic's retention and delivers it at least once, in no order. A reader that settles
//! nothing has a subscription of its own, made when it begins and removed when it ends; what a killed process leaves is swept by the next. A durable
//! subscription keeps what is not acknowledged.
//!
//! The client library batches, leases and reconnects; what it leaves to us is here: a bound on what is on its way, rate-limited administration, few
//! connections for many readers, several streams for a loud one, and an eye on subscriptions that lost their topic. `PUBSUB_EMULATOR_HOST` points it at the
//! emulator.
//!
//! A project holds 10,000 topics, so there may be several: [`placement`] says which has an app's, [`project`] is one of them, and [`multi_project`] reads an app that
//! came to be in two.

mod admin;
mod attachment;
mod catch_up;
mod clients;
mod durable;
mod failure;
mod feed;
mod message;
mod multi_project;
mod names;
mod placement;
mod project;
mod publish;
mod pull;
mod replicas;
mod settings;
mod temporary;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures::{
    FutureExt,
    future::{BoxFuture, join_all, try_join_all},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use settings::{EMULATOR_VARIABLE, PubSubSettings};

use crate::{AppName, Batch, Bus, BusError, Reader, Start};
use clients::Clients;
use failure::Failure;
use multi_project::Wanted;
use placement::Placement;
use project::Project;
use publish::Budget;

/// How long closing waits for subscriptions to be removed; what is left then, the next start sweeps.
const CLOSE_WAIT: Duration = Duration::from_secs(10);

/// The Pub/Sub engine.
pub struct PubSub {
    projects: Arc<Projects>,
}

/// The projects, and where apps are.
struct Projects {
    list: Vec<Arc<Project>>,
    placement: Placement,
    tasks: TaskTracker,
    closing: CancellationToken,
}

impl PubSub {
    /// Makes ready to use the projects; asks nothing of the service yet, which may be away.
    ///
    /// The TLS provider of the process has to be installed before.
    ///
    /// # Errors
    /// [`BusError::Settings`] where a setting cannot be meant, or the credentials cannot be used.
    pub async fn open(settings: PubSubSettings) -> Result<Self, BusError> {
        settings.check()?;
        let settings = Arc::new(settings);
        let clients = Arc::new(Clients::new(&settings).await?);
        let (tasks, closing) = (TaskTracker::new(), CancellationToken::new());
        let (limit, budget) = (Arc::new(admin::limit()), Budget::new(settings.in_flight_bytes));
        let open = |name: &String| {
            let house = (tasks.clone(), closing.clone());
            Arc::new(Project::new(name, &settings, &clients, (&limit, &budget), house))
        };
        Ok(Self {
            projects: Arc::new(Projects {
                list: settings.projects.iter().map(open).collect(),
                placement: Placement::new(settings.projects.clone(), settings.check_interval),
                tasks,
                closing,
            }),
        })
    }
}

impl Projects {
    /// Asks every project for something.
    async fn ask<'a, T, F>(&'a self, ask: impl Fn(&'a Arc<Project>) -> F) -> Result<Vec<T>, BusError>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let asked = try_join_all(self.list.iter().map(ask)).await;
        asked.map_err(Failure::into_bus_error)
    }

    /// Which projects have an app's topic, in the app's order. Usually one does.
    ///
    /// A project that does not answer is passed over where another has it; else it may be the one, and is the failure.
    async fn look(&self, app: &AppName) -> Result<Vec<usize>, Failure> {
        let order = self.placement.order(app);
        let answers = join_all(order.iter().map(|at| self.list[*at].has(app))).await;
        let (mut found, mut failure) = (Vec::new(), None);
        for (at, answer) in order.into_iter().zip(answers) {
            match answer {
                Ok(true) => found.push(at),
                Ok(false) => {}
                Err(failed) => failure = Some(failed),
            }
        }
        match failure {
            Some(failure) if found.is_empty() => Err(failure),
            _ => Ok(found),
        }
    }

    /// The same for a reader.
    async fn look_for_reader(self: &Arc<Self>, app: &AppName) -> Result<Vec<usize>, BusError> {
        if self.list.len() == 1 {
            // Whoever reads there is told as much.
            return Ok(vec![0]);
        }
        placement::keep_looking(self);
        let found = self.look(app).await.map_err(Failure::into_bus_error)?;
        if found.is_empty() {
            return Err(BusError::UnknownApp(app.clone()));
        }
        Ok(found)
    }

    /// Where an app's topic is, made where there is none: in the first of its projects that has room.
    async fn place(&self, app: &AppName) -> Result<usize, Failure> {
        // Of one project nothing need be asked: to make a topic that exists is success.
        let found = if self.list.len() == 1 {
            Vec::new()
        } else {
            self.look(app).await?
        };
        let at = match found.first() {
            Some(at) => *at,
            None => self.make(app).await?,
        };
        self.placement.learn(app, at);
        Ok(at)
    }

    async fn make(&self, app: &AppName) -> Result<usize, Failure> {
        let mut full = Failure::Full("there is no project".to_owned());
        for at in self.placement.order(app) {
            match self.list[at].create(app).await {
                Err(failure @ Failure::Full(_)) => {
                    tracing::warn!(%app, project = self.list[at].name(), "no room for another topic");
                    full = failure;
                }
                made => return made.map(|()| at),
            }
        }
        Err(full)
    }

    /// Sees to it that an app has a topic. Almost always it has, and one project is asked: collectors do it for each app that they meet.
    async fn create(&self, app: &AppName) -> Result<(), BusError> {
        let known = &self.list[self.placement.known(app)];
        if self.list.len() > 1 && known.has(app).await == Ok(true) {
            return Ok(());
        }
        self.place(app).await.map(drop).map_err(Failure::into_bus_error)
    }

    async fn publish(&self, batch: &Batch) -> Result<(), BusError> {
        publish::check(batch)?;
        let app = &batch.metadata.app;
        // No question is asked where the topic is where it was, or is to be: as almost always.
        let mut published = self.list[self.placement.known(app)].publish(batch).await;
        if published == Err(Failure::NotFound) {
            let at = self.place(app).await.map_err(Failure::into_bus_error)?;
            published = self.list[at].publish(batch).await;
        }
        published.map_err(Failure::into_bus_error)
    }

    async fn follow(self: &Arc<Self>, app: &AppName, start: Start) -> Result<Reader, BusError> {
        let found = self.look_for_reader(app).await?;
        multi_project::read(self, app, Wanted::Follow(start), found).await
    }

    async fn subscribe(self: &Arc<Self>, app: &AppName, name: &str) -> Result<Reader, BusError> {
        let found = self.look_for_reader(app).await?;
        multi_project::read(self, app, Wanted::Subscription(name.to_owned()), found).await
    }

    /// Whether the service answers for at least one project: a replica that serves the apps of all others is not to be taken out of service.
    async fn check(&self) -> Result<(), BusError> {
        let mut failed = None;
        for (project, answer) in self
            .list
            .iter()
            .zip(join_all(self.list.iter().map(|project| project.check())).await)
        {
            match answer {
                Ok(()) => return Ok(()),
                Err(failure) => {
                    tracing::debug!(project = project.name(), ?failure, "a project does not answer");
                    failed = Some(failure);
                }
            }
        }
        failed.map_or(Ok(()), |failure| Err(failure.into_bus_error()))
    }

    async fn ensure_subscription(self: &Arc<Self>, app: &AppName, name: &str) -> Result<(), BusError> {
        let found = self.look_for_reader(app).await?;
        for (at, since) in multi_project::beginnings(self, app, name, &found).await? {
            match self.list[at].ensure(app, name, since).await {
                Ok(()) | Err(BusError::Subscribed(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
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
        self.projects.follow(app, start).boxed()
    }

    fn subscribe<'a>(&'a self, app: &'a AppName, name: &'a str) -> BoxFuture<'a, Result<Reader, BusError>> {
        self.projects.subscribe(app, name).boxed()
    }

    fn ensure_subscription<'a>(&'a self, app: &'a AppName, name: &'a str) -> BoxFuture<'a, Result<(), BusError>> {
        self.projects.ensure_subscription(app, name).boxed()
    }

    fn unsubscribe<'a>(&'a self, app: &'a AppName, name: &'a str) -> BoxFuture<'a, Result<(), BusError>> {
        let removed = self.projects.ask(move |project| project.unsubscribe(app, name));
        async move { removed.await.map(drop) }.boxed()
    }

    fn apps(&self) -> BoxFuture<'_, Result<Vec<AppName>, BusError>> {
        async move { Ok(sorted(self.projects.ask(|project| project.apps()).await?)) }.boxed()
    }

    fn subscribed(&self) -> BoxFuture<'_, Result<Vec<AppName>, BusError>> {
        async move { Ok(sorted(self.projects.ask(|project| project.subscribed()).await?)) }.boxed()
    }

    fn remove<'a>(&'a self, app: &'a AppName) -> BoxFuture<'a, Result<(), BusError>> {
        let removed = self.projects.ask(move |project| project.remove(app));
        async move { removed.await.map(drop) }.boxed()
    }

    fn check(&self) -> BoxFuture<'_, Result<(), BusError>> {
        self.projects.check().boxed()
    }

    fn run_housekeeping(&self) -> BoxFuture<'_, ()> {
        async move {
            let housekeeping = join_all(self.projects.list.iter().map(|project| project.run_housekeeping()));
            let _: Option<Vec<()>> = self.projects.closing.run_until_cancelled(housekeeping).await;
        }
        .boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        async move {
            let Projects {
                list, tasks, closing, ..
            } = &*self.projects;
            closing.cancel();
            let removed = async {
                tasks.close();
                tasks.wait().await;
                join_all(list.iter().map(|project| project.leave())).await;
            };
            if tokio::time::timeout(CLOSE_WAIT, removed).await.is_err() {
                tracing::warn!("some subscriptions were not removed in time; the next start removes them");
            }
        }
        .boxed()
    }
}

fn sorted(apps: Vec<Vec<AppName>>) -> Vec<AppName> {
    let all: BTreeSet<AppName> = apps.into_iter().flatten().collect();
    all.into_iter().collect()
}
