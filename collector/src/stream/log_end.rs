//! The end of an instance's log, as far as it was read. The task of the next instance recognizes the
//! log by it.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::anchor::Anchor;

/// The end of an instance's log, as far as this process has read it. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct LogEnd(Arc<Mutex<End>>);

/// How a log ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum End {
    /// It is not known: no line was read.
    #[default]
    Unread,
    /// With this line, unless it was rotated away.
    Line(Anchor),
    /// The newest file has no line.
    Empty,
}

impl LogEnd {
    /// Returns how the log ends.
    pub fn get(&self) -> End {
        *self.0.lock()
    }

    /// Records how the log ends.
    pub fn set(&self, end: End) {
        *self.0.lock() = end;
    }
}
