//! Words for errors of TLS, PEM and the Kubernetes API, whose own messages contain debug output or
//! repeat each other. Knows no other crate of the workspace.

pub mod kubernetes;
pub mod tls;

use std::error::Error;

/// Returns the message of the innermost cause of an error: the outer ones repeat it.
pub fn innermost(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}
