//! Which project has an app's topic.
//!
//! Each app has an order of the projects of its own (rendezvous hashing): a new topic goes to the first that has room, and a project more moves no app that would
//! not go there. Where a topic exists it stays. Two collectors that meet an app first, while its first project is just getting room, may make it in two: so a
//! reader asks all projects, looks again from time to time, and reads both.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::future::try_join_all;
use parking_lot::RwLock;
use tokio::{sync::watch, time::sleep};
use xxhash_rust::xxh3::xxh3_64;

use super::Projects;
use crate::AppName;

/// Where apps are that are not, or not only, where their order has them first.
pub(super) type Displaced = Arc<HashMap<AppName, Vec<usize>>>;

/// Where apps are, as far as that was seen.
pub(super) struct Placement {
    projects: Vec<String>,
    /// Of apps that this process publishes; those in their first project are not in it.
    known: RwLock<HashMap<AppName, usize>>,
    displaced: watch::Sender<Displaced>,
    look_interval: Duration,
    looks: AtomicBool,
}

impl Placement {
    pub(super) fn new(projects: Vec<String>, look_interval: Duration) -> Self {
        Self {
            projects,
            known: RwLock::default(),
            displaced: watch::Sender::default(),
            look_interval,
            looks: AtomicBool::new(false),
        }
    }

    /// The projects in an app's order. It does not depend on the order in which they are given.
    pub(super) fn order(&self, app: &AppName) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.projects.len()).collect();
        order.sort_by_cached_key(|at| Reverse(self.weight(app, *at)));
        order
    }

    fn first(&self, app: &AppName) -> usize {
        let all = 0..self.projects.len();
        all.max_by_key(|at| self.weight(app, *at)).unwrap_or_default()
    }

    /// The same in every process of every version: an app's name has no space.
    fn weight(&self, app: &AppName, at: usize) -> u64 {
        if self.projects.len() == 1 {
            return 0;
        }
        xxh3_64(format!("{app} {}", self.projects[at]).as_bytes())
    }

    /// Where an app was, or else is to be.
    pub(super) fn known(&self, app: &AppName) -> usize {
        let known = self.known.read().get(app).copied();
        known.unwrap_or_else(|| self.first(app))
    }

    /// Where it was found, or made.
    pub(super) fn learn(&self, app: &AppName, at: usize) {
        if at == self.first(app) {
            self.known.write().remove(app);
        } else {
            self.known.write().insert(app.clone(), at);
        }
    }

    /// Says when it was looked again.
    pub(super) fn looked(&self) -> watch::Receiver<Displaced> {
        self.displaced.subscribe()
    }

    /// Where a reader of an app should look that has it from these projects alone.
    pub(super) fn missing(&self, app: &AppName, have: &[usize]) -> Vec<usize> {
        let displaced = self.displaced.borrow();
        let all = displaced.get(app).cloned().unwrap_or_else(|| vec![self.first(app)]);
        all.into_iter().filter(|at| !have.contains(at)).collect()
    }

    fn saw(&self, lists: Vec<Vec<AppName>>) {
        let mut places: BTreeMap<AppName, Vec<usize>> = BTreeMap::new();
        for (at, apps) in lists.into_iter().enumerate() {
            for app in apps {
                places.entry(app).or_default().push(at);
            }
        }
        let displaced = places.into_iter().filter(|(app, at)| *at != [self.first(app)]);
        self.displaced.send_replace(Arc::new(displaced.collect()));
    }
}

/// Looks where apps are from time to time, for as long as the engine is open. The first reader begins it.
pub(super) fn keep_looking(projects: &Arc<Projects>) {
    if projects.placement.looks.swap(true, Ordering::Relaxed) {
        return;
    }
    let interval = projects.placement.look_interval;
    let (projects, closing) = (Arc::downgrade(projects), projects.closing.clone());
    tokio::spawn(closing.run_until_cancelled_owned(async move {
        loop {
            // Many processes that began together shall not look together.
            sleep(interval.mul_f64(rand::random_range(0.8..=1.0))).await;
            let Some(projects) = projects.upgrade() else { return };
            match try_join_all(projects.list.iter().map(|project| project.apps())).await {
                // Of a hundred thousand apps this takes a while.
                Ok(lists) => {
                    let saw = tokio::task::spawn_blocking(move || projects.placement.saw(lists));
                    if let Err(error) = saw.await {
                        tracing::error!(%error, "where apps are was not seen");
                    }
                }
                Err(failure) => tracing::debug!(?failure, "cannot look where apps are for now"),
            }
        }
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placement(projects: &[&str]) -> Placement {
        let projects = projects.iter().map(|name| (*name).to_owned()).collect();
        Placement::new(projects, Duration::from_secs(60))
    }

    fn apps() -> impl Iterator<Item = AppName> {
        (0..3000).map(|n| format!("app-{n}").parse().unwrap())
    }

    #[test]
    fn apps_spread_evenly_and_the_order_of_the_flag_says_nothing() {
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
    fn a_project_more_takes_its_share_and_moves_no_other() {
        let (two, three) = (placement(&["p-1", "p-2"]), placement(&["p-1", "p-2", "p-3"]));
        let moved: Vec<usize> = apps()
            .filter(|app| two.first(app) != three.first(app))
            .map(|app| three.first(&app))
            .collect();
        assert!((900..1100).contains(&moved.len()), "{}", moved.len());
        assert!(moved.iter().all(|at| *at == 2));
    }

    #[test]
    fn a_reader_is_told_of_what_it_has_not_got() {
        let placement = placement(&["p-1", "p-2"]);
        let app: AppName = "shop".parse().unwrap();
        let (first, second) = (placement.order(&app)[0], placement.order(&app)[1]);
        assert_eq!(placement.missing(&app, &[first]), [0; 0]);
        assert_eq!(placement.missing(&app, &[second]), [first], "it may have come there");
        placement.saw(vec![vec![app.clone()], vec![app.clone()]]);
        assert_eq!(placement.missing(&app, &[first]), [second]);
        assert_eq!(placement.missing(&app, &[first, second]), [0; 0]);
    }
}
