//! What ends a collector.

use std::path::PathBuf;

/// What ends a collector. What goes wrong with the API or the bus does not: that is waited out.
#[derive(Debug, thiserror::Error)]
pub enum CollectorError {
    /// The checkpoint directory belongs to another process.
    #[error(
        "the checkpoint directory {0} is in use by another collector: stop that one, or choose another directory with --checkpoint-dir"
    )]
    InUse(PathBuf),
    /// The checkpoint directory can neither be opened, nor set aside and made anew.
    #[error("cannot use the checkpoint directory {dir}: {reason} (choose another with --checkpoint-dir)")]
    Open {
        /// Which one.
        dir: PathBuf,
        /// Why, in words.
        reason: String,
    },
}
