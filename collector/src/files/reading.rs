//! Schedules reads, directory scans and the end of an instance's files.

use std::time::Duration;

use system::clock::{Instant, steady};

use super::{tail::Tail, watch::DirChanges};
use crate::instance::ContainerState;

/// Interval of directory scans in addition to inotify events. A scan lists a few files twice.
const SCAN_INTERVAL: Duration = Duration::from_secs(5);

/// The same without inotify: a rotation is detected well before the next one.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// The container status reports termination after the runtime has written its last line; as a
/// safeguard, no data may arrive for this long.
const END_QUIET: Duration = Duration::from_millis(300);

/// The same for a pod that was deleted by force, whose containers run on for about 2 s.
const GONE_QUIET: Duration = Duration::from_secs(4);

/// The state of reading an instance's files.
pub struct ReadState {
    /// The files.
    pub tail: Tail,
    state: ContainerState,
    /// The files cannot be listed; logged once.
    is_failing: bool,
    /// There may be data to read.
    pub may_have_data: bool,
    /// Everything was read.
    pub is_idle: bool,
    /// When a file that was read to its end counts as complete.
    pub complete_at: Option<Instant>,
    /// Time of the last data or of the last state change.
    pub quiet_since: Instant,
    /// Time of the next directory scan.
    pub next_scan: Instant,
}

impl ReadState {
    /// Creates the state with an immediate scan.
    pub fn new(tail: Tail, state: ContainerState) -> Self {
        let now = steady();
        Self {
            tail,
            state,
            is_failing: false,
            may_have_data: true,
            is_idle: false,
            complete_at: None,
            quiet_since: now,
            // Covers changes from before the directory was watched.
            next_scan: now,
        }
    }

    /// Updates the state of the instance.
    pub fn set_state(&mut self, state: ContainerState) {
        if state.terminated != self.state.terminated || state.present != self.state.present {
            self.quiet_since = steady();
        }
        self.state = state;
    }

    /// Applies inotify events.
    pub fn apply_changes(&mut self, changes: DirChanges) {
        if changes.files_changed || !changes.closed.is_empty() {
            self.scan();
        }
        changes.closed.iter().for_each(|name| self.tail.mark_closed(name));
        self.wake();
    }

    /// Scans the directory independent of inotify events.
    pub fn scan_now(&mut self, is_polling: bool) {
        self.scan();
        self.wake();
        self.next_scan = steady() + if is_polling { POLL_INTERVAL } else { SCAN_INTERVAL };
    }

    /// Schedules a read.
    pub fn wake(&mut self) {
        (self.may_have_data, self.is_idle, self.complete_at) = (true, false, None);
    }

    /// Opens new files and returns whether there are any.
    pub fn scan(&mut self) -> bool {
        let found = match self.tail.scan(steady()) {
            Ok(found) => {
                self.is_failing = false;
                found
            }
            Err(error) => {
                if !std::mem::replace(&mut self.is_failing, true) {
                    tracing::warn!(%error, dir = %self.tail.dir().display(), "log directory listing failed");
                }
                false
            }
        };
        if found {
            self.wake();
        }
        found
    }

    /// Returns when reading ends unless data arrives, or `None` while the container runs.
    pub fn ends_at(&self) -> Option<Instant> {
        let wait = match self.state {
            ContainerState { terminated: true, .. } => END_QUIET,
            ContainerState { present: false, .. } => GONE_QUIET,
            _ => return None,
        };
        self.is_idle.then(|| self.quiet_since + wait)
    }
}
