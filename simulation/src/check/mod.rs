//! The promises, checked against what every container printed.
//!
//! [`printed`] holds the truth. [`tail`] checks what one client received, [`drain`] what one
//! receiver received. A broken promise is a [`Violation`].

pub mod drain;
pub mod printed;
pub mod tail;
mod violation;

pub use violation::{Rule, Violation, limit};
