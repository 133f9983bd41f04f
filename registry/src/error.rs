//! What can go wrong with what is configured.

use std::{io, path::PathBuf};

/// What can go wrong with what is configured. None of the texts holds a secret.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The app has this drain.
    #[error("the app has a drain with this URL already")]
    Duplicate,
    /// The app has as many drains as it may.
    #[error("the app has {0} drains already, as many as it may have: remove one first")]
    TooMany(usize),
    /// The app has no drain with this id.
    #[error("the app has no drain with this id")]
    UnknownDrain,
    /// No key has this id.
    #[error("no key has this id: `tributary keys list` shows them")]
    UnknownKey,
    /// The file is not one of ours, or is torn.
    #[error(
        "the registry {path} cannot be read: {reason}: bring back a copy of it, or move it away to begin without keys and drains"
    )]
    Damaged {
        /// Which one.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The disk is full or broken, or the rights are not enough.
    #[error("the registry {path} cannot be used: {source}")]
    Store {
        /// Which one.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The Kubernetes API does not answer, or refuses.
    #[error("the registry in the Secrets of the namespace {namespace} cannot be used: {reason}")]
    Api {
        /// Where the Secrets are.
        namespace: String,
        /// What the API says.
        reason: String,
    },
}

impl RegistryError {
    /// Whether the same call may succeed later.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Store { .. } | Self::Api { .. })
    }
}
