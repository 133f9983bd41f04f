//! The state that the tails of one app share.

use std::sync::Arc;

use bus::AppName;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::hub::{cached_history::CachedHistory, ring::Ring};

/// The hub of one app, shared by its tails.
pub(crate) struct Hub {
    pub(crate) app: AppName,
    /// The newest lines.
    pub(crate) ring: Ring,
    /// Cancelled when the ring gets no more frames; tails then end after its last frame.
    pub(crate) done: CancellationToken,
    /// Serializes history reads, so that many tails that connect at once cause only one.
    pub(crate) history_read: tokio::sync::Mutex<()>,
    /// The last history read, reused by later tails.
    pub(crate) cached_history: Mutex<Option<Arc<CachedHistory>>>,
}

impl Hub {
    pub(crate) fn new(app: AppName, ring: Ring) -> Self {
        Self {
            app,
            ring,
            done: CancellationToken::new(),
            history_read: tokio::sync::Mutex::new(()),
            cached_history: Mutex::default(),
        }
    }
}
