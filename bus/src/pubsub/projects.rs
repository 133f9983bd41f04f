//! All projects of the engine, and which of them has an app's topic.

use std::sync::{Arc, Weak};

use futures::future::{join_all, try_join_all};
use tokio::time::sleep;

use super::{
    admin_client,
    app_placement::Placement,
    failure::Failure,
    project::{Project, Shared},
    publish::{self, Budget},
    service::Service,
    settings::PubSubSettings,
};
use crate::{AppName, Batch, BusError};

/// The projects.
pub(super) struct Projects {
    pub(super) list: Vec<Arc<Project>>,
    pub(super) placement: Placement,
    pub(super) shared: Arc<Shared>,
}

impl Projects {
    /// Opens the projects without contacting the service.
    pub(super) fn new(settings: PubSubSettings, service: Arc<dyn Service>) -> Self {
        let placement = Placement::new(settings.projects.clone());
        let shared = Arc::new(Shared {
            service,
            limit: Arc::new(admin_client::limit()),
            budget: Budget::new(settings.in_flight_bytes),
            clock: Arc::default(),
            tasks: Default::default(),
            closing: Default::default(),
            settings,
        });
        let projects = shared.settings.projects.iter();
        Self {
            list: projects.map(|name| Arc::new(Project::new(name, &shared))).collect(),
            placement,
            shared,
        }
    }

    /// Calls every project.
    pub(super) async fn call_each<'a, T, F>(&'a self, call: impl Fn(&'a Arc<Project>) -> F) -> Result<Vec<T>, BusError>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let called = try_join_all(self.list.iter().map(call)).await;
        called.map_err(Failure::into_bus_error)
    }

    /// Returns the projects that have an app's topic, in the app's order. Usually there is one.
    ///
    /// A project that does not answer is ignored if another one has the topic; otherwise it may
    /// have the topic, and its failure is returned.
    async fn locate(&self, app: &AppName) -> Result<Vec<usize>, Failure> {
        let order = self.placement.order(app);
        let answers = join_all(order.iter().map(|index| self.list[*index].has(app))).await;
        let (mut found, mut failure) = (Vec::new(), None);
        for (index, answer) in order.into_iter().zip(answers) {
            match answer {
                Ok(true) => found.push(index),
                Ok(false) => {}
                Err(failed) => failure = Some(failed),
            }
        }
        match failure {
            Some(failure) if found.is_empty() => Err(failure),
            _ => Ok(found),
        }
    }

    /// Returns the projects in which to read an app.
    pub(super) async fn locate_for_reader(self: &Arc<Self>, app: &AppName) -> Result<Vec<usize>, BusError> {
        if self.list.len() == 1 {
            // The reader reports a missing topic.
            return Ok(vec![0]);
        }
        self.start_refreshing();
        let found = self.locate(app).await.map_err(Failure::into_bus_error)?;
        if found.is_empty() {
            return Err(BusError::UnknownApp(app.clone()));
        }
        Ok(found)
    }

    /// Returns the project of an app's topic, which is created if it does not exist, in the first
    /// project of the app's order that has room.
    async fn locate_or_create(&self, app: &AppName) -> Result<usize, Failure> {
        // Creating an existing topic is success, so a single project needs no lookup.
        let found = if self.list.len() == 1 {
            Vec::new()
        } else {
            self.locate(app).await?
        };
        let index = match found.first() {
            Some(index) => *index,
            None => self.create_in_first_free(app).await?,
        };
        self.placement.record(app, index);
        Ok(index)
    }

    async fn create_in_first_free(&self, app: &AppName) -> Result<usize, Failure> {
        let mut full = Failure::Full("no project is configured".to_owned());
        for index in self.placement.order(app) {
            match self.list[index].create(app).await {
                Err(failure @ Failure::Full(_)) => {
                    tracing::warn!(%app, project = self.list[index].name(), ?failure, "project is full");
                    full = failure;
                }
                created => return created.map(|()| index),
            }
        }
        Err(full)
    }

    /// Creates an app's topic if it does not exist. It nearly always exists, so its expected
    /// project is asked first: collectors call this for each app that they discover.
    pub(super) async fn create(&self, app: &AppName) -> Result<(), BusError> {
        let expected = &self.list[self.placement.expected(app)];
        if self.list.len() > 1 && expected.has(app).await == Ok(true) {
            return Ok(());
        }
        let created = self.locate_or_create(app).await;
        created.map(drop).map_err(Failure::into_bus_error)
    }

    /// Publishes a batch, without a lookup if its topic is in the expected project.
    pub(super) async fn publish(&self, batch: &Batch) -> Result<(), BusError> {
        publish::check(batch)?;
        let app = &batch.metadata.app;
        let mut published = self.list[self.placement.expected(app)].publish(batch).await;
        if published == Err(Failure::NotFound) {
            let index = self.locate_or_create(app).await.map_err(Failure::into_bus_error)?;
            published = self.list[index].publish(batch).await;
        }
        published.map_err(Failure::into_bus_error)
    }

    /// Checks that at least one project answers: a replica that can serve the other projects' apps
    /// stays in service.
    pub(super) async fn check(&self) -> Result<(), BusError> {
        let mut failed = None;
        let answers = join_all(self.list.iter().map(|project| project.check())).await;
        for (project, answer) in self.list.iter().zip(answers) {
            match answer {
                Ok(()) => return Ok(()),
                Err(failure) => {
                    tracing::debug!(project = project.name(), ?failure, "project unavailable");
                    failed = Some(failure);
                }
            }
        }
        failed.map_or(Ok(()), |failure| Err(failure.into_bus_error()))
    }

    /// Starts to refresh the placement periodically until the engine closes. The first reader
    /// calls it.
    fn start_refreshing(self: &Arc<Self>) {
        if self.placement.set_refreshing() {
            return;
        }
        let closing = self.shared.closing.clone();
        let refreshing = refresh(Arc::downgrade(self), self.shared.settings.check_interval);
        system::task::spawn(closing.run_until_cancelled_owned(refreshing));
    }
}

async fn refresh(projects: Weak<Projects>, interval: std::time::Duration) {
    loop {
        // Jitter spreads the calls of processes that started together.
        sleep(interval.mul_f64(system::random::random_range(0.8..=1.0))).await;
        let Some(projects) = projects.upgrade() else { return };
        match try_join_all(projects.list.iter().map(|project| project.apps())).await {
            // With a hundred thousand apps the comparison takes a while.
            Ok(lists) => {
                let updated = system::task::blocking(move || projects.placement.update(lists));
                if let Err(error) = updated.await {
                    tracing::error!(%error, "placement refresh panicked");
                }
            }
            Err(failure) => tracing::debug!(?failure, "placement refresh failed"),
        }
    }
}
