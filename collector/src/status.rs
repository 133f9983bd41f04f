//! How far a collector is, for those who wait for it.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::sync::watch;

/// How far a collector is. Clones see the same.
#[derive(Clone, Debug)]
pub struct Status {
    listed: Arc<watch::Sender<bool>>,
    unrecognized_lines: Arc<AtomicU64>,
}

impl Status {
    /// Whether the pods have been listed once: from then on their containers are being followed.
    pub fn is_listed(&self) -> bool {
        *self.listed.borrow()
    }

    /// Returns once the pods have been listed.
    ///
    /// *Cancel safety*: nothing is lost.
    pub async fn listed(&self) {
        // The sender lives as long as self: waiting cannot fail.
        let _ = self.listed.subscribe().wait_for(|listed| *listed).await;
    }

    /// Lines of the node's files that are not in the runtime's format. They are taken as they stand, as content of standard output.
    pub fn unrecognized_lines(&self) -> u64 {
        self.unrecognized_lines.load(Ordering::Relaxed)
    }

    pub(crate) fn add_unrecognized_lines(&self, lines: u64) {
        self.unrecognized_lines.fetch_add(lines, Ordering::Relaxed);
    }

    pub(crate) fn set_listed(&self) {
        self.listed.send_replace(true);
    }
}

impl Default for Status {
    fn default() -> Self {
        Self {
            listed: Arc::new(watch::Sender::new(false)),
            unrecognized_lines: Arc::default(),
        }
    }
}
