//! Errors that prevent the collector from starting.

use std::path::PathBuf;

/// An error that prevents the collector from starting. Failures of the API or the bus are retried
/// instead.
#[derive(Debug, thiserror::Error)]
pub enum CollectorError {
    /// Another collector uses the checkpoint directory.
    #[error(
        "checkpoint directory {0} is in use by another collector; stop it or choose another directory with --checkpoint-dir"
    )]
    InUse(PathBuf),
    /// The checkpoint directory can neither be opened nor replaced.
    #[error("cannot use checkpoint directory {dir}: {reason}; choose another one with --checkpoint-dir")]
    Open {
        /// The directory.
        dir: PathBuf,
        /// The cause.
        reason: String,
    },
}
