//! The state of the API server: objects, their resource versions and the history of their changes.
//!
//! It has no HTTP and no node logic: `api` serves it and `node` changes it.

pub(crate) mod history;
pub(crate) mod objects;
pub(crate) mod pod;
pub(crate) mod pods;
pub(crate) mod rbac;
pub(crate) mod secrets;
pub(crate) mod write_error;
