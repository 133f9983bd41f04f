//! Which project has an app's topic.
//!
//! Each app has its own order of the projects, by rendezvous hashing: a new topic goes to the first
//! project that has room, and an added project takes over only the apps that it ranks first for. An
//! existing topic stays. Two collectors that discover an app at the same time, while its first
//! project just gets room, may create its topic in two projects; so a reader asks all projects,
//! refreshes the placement periodically, and reads both.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::RwLock;
use system::collections::HashMap;
use tokio::sync::watch;

use crate::{AppName, rendezvous};

/// The projects of apps that are not, or not only, in the first project of their order.
pub(super) type Displaced = Arc<HashMap<AppName, Vec<usize>>>;

/// The projects of apps, as far as this process has found them.
pub(super) struct Placement {
    projects: Vec<String>,
    /// Projects of apps that this process publishes, except the first of their order.
    published_elsewhere: RwLock<HashMap<AppName, usize>>,
    displaced: watch::Sender<Displaced>,
    refreshing: AtomicBool,
}

impl Placement {
    pub(super) fn new(projects: Vec<String>) -> Self {
        Self {
            projects,
            published_elsewhere: RwLock::default(),
            displaced: watch::Sender::default(),
            refreshing: AtomicBool::new(false),
        }
    }

    /// Returns the projects in an app's order, which does not depend on the order of the setting.
    pub(super) fn order(&self, app: &AppName) -> Vec<usize> {
        match self.projects.len() {
            1 => vec![0],
            _ => rendezvous::order(app, &self.projects),
        }
    }

    fn first(&self, app: &AppName) -> usize {
        match self.projects.len() {
            1 => 0,
            _ => rendezvous::owner(app, &self.projects).unwrap_or_default(),
        }
    }

    /// Returns the project in which an app's topic was last found, or else would be created first.
    pub(super) fn expected(&self, app: &AppName) -> usize {
        let elsewhere = self.published_elsewhere.read().get(app).copied();
        elsewhere.unwrap_or_else(|| self.first(app))
    }

    /// Records the project in which an app's topic was found or created.
    pub(super) fn record(&self, app: &AppName, project: usize) {
        if project == self.first(app) {
            self.published_elsewhere.write().remove(app);
        } else {
            self.published_elsewhere.write().insert(app.clone(), project);
        }
    }

    /// Marks the placement as refreshed by a task; returns whether it already was.
    pub(super) fn set_refreshing(&self) -> bool {
        self.refreshing.swap(true, Ordering::Relaxed)
    }

    /// Returns a receiver that changes with each refresh.
    pub(super) fn subscribe(&self) -> watch::Receiver<Displaced> {
        self.displaced.subscribe()
    }

    /// Returns the projects in which an app's topic may exist, except those in `reading`.
    pub(super) fn unread_projects(&self, app: &AppName, reading: &[usize]) -> Vec<usize> {
        let displaced = self.displaced.borrow();
        let all = displaced.get(app).cloned().unwrap_or_else(|| vec![self.first(app)]);
        all.into_iter().filter(|project| !reading.contains(project)).collect()
    }

    /// Updates the placement from the apps of each project.
    pub(super) fn update(&self, lists: Vec<Vec<AppName>>) {
        let mut projects_of: BTreeMap<AppName, Vec<usize>> = BTreeMap::new();
        for (project, apps) in lists.into_iter().enumerate() {
            for app in apps {
                projects_of.entry(app).or_default().push(project);
            }
        }
        let displaced = projects_of
            .into_iter()
            .filter(|(app, projects)| *projects != [self.first(app)]);
        self.displaced.send_replace(Arc::new(displaced.collect()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placement(projects: &[&str]) -> Placement {
        let projects = projects.iter().map(|name| (*name).to_owned()).collect();
        Placement::new(projects)
    }

    fn apps() -> impl Iterator<Item = AppName> {
        (0..3000).map(|n| format!("app-{n}").parse().unwrap())
    }

    #[test]
    fn apps_spread_evenly_regardless_of_the_order_of_the_setting() {
        let (one, other) = (placement(&["p-1", "p-2", "p-3"]), placement(&["p-3", "p-1", "p-2"]));
        let mut counts = [0; 3];
        for app in apps() {
            counts[one.first(&app)] += 1;
            let names = |placement: &Placement| -> Vec<String> {
                let order = placement.order(&app);
                order.iter().map(|at| placement.projects[*at].clone()).collect()
            };
            assert_eq!(names(&one), names(&other));
            assert_eq!(one.order(&app)[0], one.first(&app));
        }
        assert!(counts.iter().all(|count| (900..1100).contains(count)), "{counts:?}");
    }

    #[test]
    fn an_added_project_takes_its_share_and_moves_no_other_app() {
        let (two, three) = (placement(&["p-1", "p-2"]), placement(&["p-1", "p-2", "p-3"]));
        let moved: Vec<usize> = apps()
            .filter(|app| two.first(app) != three.first(app))
            .map(|app| three.first(&app))
            .collect();
        assert!((900..1100).contains(&moved.len()), "{}", moved.len());
        assert!(moved.iter().all(|at| *at == 2));
    }

    #[test]
    fn a_reader_learns_of_projects_that_it_does_not_read() {
        let placement = placement(&["p-1", "p-2"]);
        let app: AppName = "shop".parse().unwrap();
        let (first, second) = (placement.order(&app)[0], placement.order(&app)[1]);
        assert_eq!(placement.unread_projects(&app, &[first]), [0; 0]);
        assert_eq!(
            placement.unread_projects(&app, &[second]),
            [first],
            "the topic may exist there meanwhile"
        );
        placement.update(vec![vec![app.clone()], vec![app.clone()]]);
        assert_eq!(placement.unread_projects(&app, &[first]), [second]);
        assert_eq!(placement.unread_projects(&app, &[first, second]), [0; 0]);
    }
}
