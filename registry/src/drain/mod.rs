//! Drains: where an app's lines are forwarded. Parses and checks URLs; it performs no I/O.

mod address;
mod record;
mod report;
mod target;
mod url;

pub use address::Addresses;
pub use record::Drain;
pub use report::{DrainReport, DrainState, ProbeReport, ProbeStep, Prober};
pub use target::{Framing, Protocol, Target};
pub use url::{DrainUrl, InvalidDrainUrl};
