//! Errors of the registry.

use std::{io, path::PathBuf};

/// An error of the registry. No message contains a secret.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The app already has a drain with this URL.
    #[error("the app already has a drain with this URL")]
    DuplicateDrain,
    /// The app has the maximum number of drains.
    #[error("the app has {0} drains, the maximum; remove one before you add another")]
    TooManyDrains(usize),
    /// The app has no drain with this id.
    #[error("the app has no drain with this id; list its drains with `tributary drains list`")]
    UnknownDrain,
    /// No key has this id.
    #[error("no key has this id; list the keys with `tributary keys list`")]
    UnknownKey,
    /// The file is truncated or not a registry.
    #[error(
        "cannot read the registry file {path}: {reason}; restore a backup, or move the file away to start without keys and drains"
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// The position and kind of the error.
        reason: String,
    },
    /// Another release of Tributary wrote the file.
    #[error(
        "cannot read the registry file {path}: its format version is {found}, this release reads {expected}; use the release that wrote it"
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// The file's format version.
        found: String,
        /// The supported one.
        expected: &'static str,
    },
    /// The file or its directory cannot be read or written.
    #[error("cannot read or write the registry file {path}: {source}; check its permissions and the free disk space")]
    Io {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The Kubernetes API is unavailable or refuses the request.
    #[error("cannot use the registry in the Secrets of namespace {namespace}: {reason}")]
    Kubernetes {
        /// The namespace of the Secrets.
        namespace: String,
        /// The API's message.
        reason: String,
    },
}

impl RegistryError {
    /// Whether the same call may succeed later.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Io { .. } | Self::Kubernetes { .. })
    }
}
