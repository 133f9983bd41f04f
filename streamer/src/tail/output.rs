//! What a tail sends next.

use std::sync::Arc;

use crate::frame::rendered::{EncodedCursor, Rendered};

/// The next output of a tail.
pub(crate) struct Output {
    /// In order; may be empty.
    pub(crate) pieces: Vec<Rendered>,
    /// The cursor after the pieces. `None` while more is available.
    pub(crate) cursor: Option<Arc<EncodedCursor>>,
    /// Nothing follows.
    pub(crate) ended: bool,
    /// The answer is complete: everything that was asked for was sent.
    pub(crate) finished: bool,
}

impl Output {
    pub(crate) fn last(pieces: Vec<Rendered>, cursor: Option<Arc<EncodedCursor>>) -> Self {
        Self {
            pieces,
            cursor,
            ended: true,
            finished: false,
        }
    }
}
