//! The state of the API server: objects, their resource versions and the history of their changes.
//!
//! It knows no HTTP and no node: `api` serves it and `node` changes it.

pub(crate) mod history;
pub(crate) mod objects;
pub(crate) mod pod;
pub(crate) mod pods;
pub(crate) mod secrets;
pub(crate) mod write_error;
