//! The collector's progress, for its callers.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::report::UnreadableContainers;

/// The collector's progress. Clones share it.
#[derive(Clone, Debug)]
pub struct Progress {
    listed: Arc<watch::Sender<bool>>,
    unrecognized_lines: Arc<AtomicU64>,
    disk_failure: Arc<Mutex<Option<String>>>,
    no_pods: Arc<Mutex<Option<String>>>,
    pub(crate) unreadable: UnreadableContainers,
}

impl Progress {
    /// Returns whether the pods have been listed once; from then on their containers are read.
    pub fn is_listed(&self) -> bool {
        *self.listed.borrow()
    }

    /// Returns once the pods have been listed.
    ///
    /// *Cancel safety*: safe to drop and call again.
    pub async fn listed(&self) {
        // `self` keeps the sender alive, so waiting cannot fail.
        let _ = self.listed.subscribe().wait_for(|listed| *listed).await;
    }

    /// Returns the number of lines in node files that are not in the runtime's format. They are
    /// published unchanged as standard output.
    pub fn unrecognized_lines(&self) -> u64 {
        self.unrecognized_lines.load(Ordering::Relaxed)
    }

    /// Returns why the disk accepts no checkpoints or no spooled data; `None` if it does. Checked
    /// every few seconds.
    pub fn disk_failure(&self) -> Option<String> {
        self.disk_failure.lock().clone()
    }

    /// Returns what is wrong if no pod was seen on the node for a minute; `None` from the first pod
    /// on.
    pub fn missing_pods(&self) -> Option<String> {
        self.no_pods.lock().clone()
    }

    /// Returns one line about the containers whose logs could not be read for a minute or longer;
    /// `None` if there is none.
    pub fn unreadable_containers(&self) -> Option<String> {
        self.unreadable.summary()
    }

    pub(crate) fn set_no_pods(&self, problem: Option<String>) {
        *self.no_pods.lock() = problem;
    }

    pub(crate) fn set_disk_failure(&self, reason: Option<String>) {
        *self.disk_failure.lock() = reason;
    }

    pub(crate) fn add_unrecognized_lines(&self, lines: u64) {
        self.unrecognized_lines.fetch_add(lines, Ordering::Relaxed);
    }

    pub(crate) fn set_listed(&self) {
        self.listed.send_replace(true);
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            listed: Arc::new(watch::Sender::new(false)),
            unrecognized_lines: Arc::default(),
            disk_failure: Arc::default(),
            no_pods: Arc::default(),
            unreadable: UnreadableContainers::default(),
        }
    }
}
