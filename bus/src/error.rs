//! What can go wrong on the bus.

use std::path::PathBuf;

use crate::app::AppName;

/// What can go wrong on the bus.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// No topic of this app.
    #[error("no app named {0} on the bus")]
    UnknownApp(AppName),
    /// The directory of the embedded bus belongs to another process.
    #[error("the bus directory {0} is in use by another process: stop that one, or choose another directory")]
    InUse(PathBuf),
    /// The directory of the embedded bus cannot be opened.
    #[error("the bus directory {dir} cannot be opened: {reason}")]
    Open {
        /// Which one.
        dir: PathBuf,
        /// Why, in words.
        reason: String,
    },
    /// The batch is larger than the bus takes: never to be tried again.
    #[error("a batch of {bytes} bytes is larger than the bus takes ({})", crate::MAX_BATCH_BYTES)]
    TooLarge {
        /// Its data.
        bytes: usize,
    },
    /// Another reader holds the durable subscription.
    #[error("the subscription {0} has a reader already")]
    Subscribed(String),
    /// The bus has been shut down.
    #[error("the bus is closed")]
    Closed,
    /// The store of the embedded bus failed: a disk that is full or broken.
    #[error("the bus cannot store: {0}")]
    Store(#[from] std::io::Error),
}

impl BusError {
    /// Whether the same call may succeed later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Store(_) | Self::Closed | Self::InUse(_) | Self::Subscribed(_) => true,
            Self::UnknownApp(_) | Self::Open { .. } | Self::TooLarge { .. } => false,
        }
    }
}
