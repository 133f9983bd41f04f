//! Errors at startup.

/// A setting that cannot be used, in one line without secrets.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SinksError(pub(crate) String);
