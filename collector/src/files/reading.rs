//! How the reading of an instance's files stands: what to do when.

use std::time::Duration;

use tokio::time::Instant;

use super::{tail::Tail, watch::DirChanges};
use crate::instance::ContainerState;

/// The net below the kernel's events: a directory is looked at at least this often. It costs two lists of a few files.
const SCAN_INTERVAL: Duration = Duration::from_secs(5);

/// The same where the kernel tells nothing: a rotation is seen well before the next can come.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// A container's status says that it terminated after the runtime has written its last line; so long, nothing may have come since, for the case that it did not.
const END_QUIET: Duration = Duration::from_millis(300);

/// The same for a pod that is gone without a word of its end: deleted by force, its containers run on for about 2 s.
const GONE_QUIET: Duration = Duration::from_secs(4);

/// How the reading stands.
pub struct ReadState {
    /// The files.
    pub tail: Tail,
    state: ContainerState,
    /// The files cannot be listed for now: told once.
    is_failing: bool,
    /// There may be something to read.
    pub may_have_data: bool,
    /// Everything was read.
    pub is_idle: bool,
    /// When a file that was read to its end counts as complete.
    pub settle_at: Option<Instant>,
    /// When something was last read, or told of the instance.
    pub quiet_since: Instant,
    /// When to look, whatever the kernel says.
    pub next_scan: Instant,
}

impl ReadState {
    /// Begins with a look.
    pub fn new(tail: Tail, state: ContainerState) -> Self {
        let now = Instant::now();
        Self {
            tail,
            state,
            is_failing: false,
            may_have_data: true,
            is_idle: false,
            settle_at: None,
            quiet_since: now,
            // At once: what happened before the kernel was asked to tell.
            next_scan: now,
        }
    }

    /// The instance is now like this.
    pub fn set_state(&mut self, state: ContainerState) {
        if state.terminated != self.state.terminated || state.present != self.state.present {
            self.quiet_since = Instant::now();
        }
        self.state = state;
    }

    /// The kernel told this.
    pub fn apply_changes(&mut self, changes: DirChanges) {
        if changes.files_changed || !changes.closed.is_empty() {
            self.scan();
        }
        changes.closed.iter().for_each(|name| self.tail.mark_closed(name));
        self.wake();
    }

    /// Looks, whatever the kernel told.
    pub fn scan_now(&mut self, is_polling: bool) {
        self.scan();
        self.wake();
        self.next_scan = Instant::now() + if is_polling { POLL_INTERVAL } else { SCAN_INTERVAL };
    }

    /// There may be something to read.
    pub fn wake(&mut self) {
        (self.may_have_data, self.is_idle, self.settle_at) = (true, false, None);
    }

    /// Looks for new files. Whether there are.
    pub fn scan(&mut self) -> bool {
        let found = match self.tail.scan(Instant::now()) {
            Ok(found) => {
                self.is_failing = false;
                found
            }
            Err(error) => {
                if !std::mem::replace(&mut self.is_failing, true) {
                    tracing::warn!(%error, dir = %self.tail.dir().display(), "a container's files cannot be listed for now");
                }
                false
            }
        };
        if found {
            self.wake();
        }
        found
    }

    /// When it is over, unless something comes. `None`: not for now.
    pub fn ends_at(&self) -> Option<Instant> {
        let wait = match self.state {
            ContainerState { terminated: true, .. } => END_QUIET,
            ContainerState { present: false, .. } => GONE_QUIET,
            _ => return None,
        };
        self.is_idle.then(|| self.quiet_since + wait)
    }
}
