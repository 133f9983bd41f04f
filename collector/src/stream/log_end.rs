//! The end of an instance's log, as far as it was read. The task of the next instance recognizes the
//! log by it.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::anchor::Anchor;

/// The last line that was read of an instance by this process; `None`: none yet. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct LogEnd(Arc<Mutex<Option<Anchor>>>);

impl LogEnd {
    /// Returns the last line.
    pub fn last(&self) -> Option<Anchor> {
        *self.0.lock()
    }

    /// Records that this line was read.
    pub fn set_last(&self, line: Anchor) {
        *self.0.lock() = Some(line);
    }
}
