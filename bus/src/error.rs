//! Errors of the bus.

use std::path::PathBuf;

use crate::{app::AppName, batch::MAX_BATCH_BYTES};

/// Errors of the bus.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// The app has no topic.
    #[error("app {0} does not exist on the bus; check its name")]
    UnknownApp(AppName),
    /// Another process uses the directory of the embedded bus.
    #[error(
        "cannot open the bus directory {0}: another process is using it; stop that process or choose another directory"
    )]
    InUse(PathBuf),
    /// The directory of the embedded bus cannot be opened.
    #[error("cannot open the bus directory {dir}: {reason}")]
    Open {
        /// The directory.
        dir: PathBuf,
        /// The cause.
        reason: String,
    },
    /// The batch exceeds [`MAX_BATCH_BYTES`].
    #[error("cannot publish a batch of {bytes} bytes: the maximum is {MAX_BATCH_BYTES}")]
    TooLarge {
        /// Size of its data.
        bytes: usize,
    },
    /// The durable subscription has a reader.
    #[error("cannot read subscription {0}: it already has a reader")]
    SubscriptionInUse(String),
    /// A setting or the credentials are invalid.
    #[error("{0}")]
    Settings(String),
    /// The bus does not answer, or is temporarily unable to serve the request.
    #[error("the bus is unavailable: {0}")]
    Unavailable(String),
    /// A quota is exhausted. An operator must raise it or delete unused resources.
    #[error("a quota of the bus is exhausted: {0}")]
    Quota(String),
    /// The credentials lack a permission.
    #[error("the bus denied access: {0}")]
    Denied(String),
    /// The bus rejects the request permanently.
    #[error("the bus rejected the request: {0}")]
    Refused(String),
    /// The bus has been shut down.
    #[error("the bus is closed")]
    Closed,
    /// The embedded bus cannot write to or read from its disk.
    #[error("the bus cannot access its storage: {0}; check the disk's free space and health")]
    Store(#[from] std::io::Error),
}

impl BusError {
    /// Returns whether a retry of the same call may succeed.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Store(_)
            | Self::Closed
            | Self::InUse(_)
            | Self::SubscriptionInUse(_)
            | Self::Unavailable(_)
            | Self::Quota(_)
            | Self::Denied(_) => true,
            Self::UnknownApp(_) | Self::Open { .. } | Self::TooLarge { .. } | Self::Settings(_) | Self::Refused(_) => {
                false
            }
        }
    }
}
