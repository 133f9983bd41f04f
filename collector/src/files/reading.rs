//! How the reading of an instance's files stands: what to do when.

use std::time::Duration;

use tokio::time::Instant;

use super::{tail::Tail, watch::News};
use crate::instance::Known;

/// The net below the kernel's events: a directory is looked at at least this often. It costs two lists of a few files.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The same where the kernel tells nothing: a rotation is seen well before the next can come.
const LOOK_EVERY_DEAF: Duration = Duration::from_millis(250);

/// A container's status says that it terminated after the runtime has written its last line; so long, nothing may have come since, for the case that it did not.
const END_QUIET: Duration = Duration::from_millis(300);

/// The same for a pod that is gone without a word of its end: deleted by force, its containers run on for about 2 s.
const GONE_QUIET: Duration = Duration::from_secs(4);

/// How the reading stands.
pub struct Reading {
    /// The files.
    pub tail: Tail,
    known: Known,
    /// The files cannot be listed for now: told once.
    is_failing: bool,
    /// There may be something to read.
    pub is_hungry: bool,
    /// Everything was read.
    pub is_idle: bool,
    /// When a file that was read to its end counts as complete.
    pub settled: Option<Instant>,
    /// When something was last read, or told of the instance.
    pub quiet_since: Instant,
    /// When to look, whatever the kernel says.
    pub look: Instant,
}

impl Reading {
    /// Begins with a look.
    pub fn new(tail: Tail, known: Known) -> Self {
        let now = Instant::now();
        Self {
            tail,
            known,
            is_failing: false,
            is_hungry: true,
            is_idle: false,
            settled: None,
            quiet_since: now,
            // At once: what happened before the kernel was asked to tell.
            look: now,
        }
    }

    /// The instance is now like this.
    pub fn is_told(&mut self, known: Known) {
        if known.terminated != self.known.terminated || known.present != self.known.present {
            self.quiet_since = Instant::now();
        }
        self.known = known;
    }

    /// The kernel told this.
    pub fn hears(&mut self, news: News) {
        if news.is_changed || !news.closed.is_empty() {
            self.scan();
        }
        news.closed.iter().for_each(|name| self.tail.closed(name));
        self.wakes();
    }

    /// Looks, whatever the kernel told.
    pub fn looks(&mut self, is_deaf: bool) {
        self.scan();
        self.wakes();
        self.look = Instant::now() + if is_deaf { LOOK_EVERY_DEAF } else { LOOK_EVERY };
    }

    /// There may be something to read.
    pub fn wakes(&mut self) {
        (self.is_hungry, self.is_idle, self.settled) = (true, false, None);
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
            self.wakes();
        }
        found
    }

    /// When it is over, unless something comes. `None`: not for now.
    pub fn ends(&self) -> Option<Instant> {
        let wait = match self.known {
            Known { terminated: true, .. } => END_QUIET,
            Known { present: false, .. } => GONE_QUIET,
            _ => return None,
        };
        self.is_idle.then(|| self.quiet_since + wait)
    }
}
