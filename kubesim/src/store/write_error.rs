//! The error of a write to the store.

/// A write to the store was rejected.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum WriteError {
    /// An object with this name already exists.
    AlreadyExists,
    /// The object does not exist.
    NotFound,
    /// The object has changed since the version the writer read.
    Conflict,
}
