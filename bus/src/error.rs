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
    /// A setting of the bus cannot be meant, or its credentials cannot be used: for an operator to mend.
    #[error("{0}")]
    Settings(String),
    /// The bus does not answer, or answers that it cannot just now.
    #[error("the bus does not answer: {0}")]
    Unavailable(String),
    /// A quota of the bus is used up: an operator has to raise it, or to remove what is not needed.
    #[error("the bus has no room: {0}")]
    Quota(String),
    /// The bus does not let us: an operator has to grant the right.
    #[error("the bus refuses the credentials: {0}")]
    Denied(String),
    /// The bus will never take this request.
    #[error("the bus refuses the request: {0}")]
    Refused(String),
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
            Self::Store(_)
            | Self::Closed
            | Self::InUse(_)
            | Self::Subscribed(_)
            | Self::Unavailable(_)
            | Self::Quota(_)
            | Self::Denied(_) => true,
            Self::UnknownApp(_) | Self::Open { .. } | Self::TooLarge { .. } | Self::Settings(_) | Self::Refused(_) => {
                false
            }
        }
    }
}
