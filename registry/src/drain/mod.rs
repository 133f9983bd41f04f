//! Drains: URLs, allowed addresses, state and test reports. Parses and checks; it performs no I/O.

mod address_policy;
mod probe;
mod record;
mod report;
mod target;
mod url;

pub use address_policy::AddressPolicy;
pub use probe::{ProbeReport, ProbeStep, Prober};
pub use record::{Drain, Drains};
pub use report::{DrainReport, DrainState};
pub use target::{DrainTarget, Framing, Protocol};
pub use url::{DrainUrl, InvalidDrainUrl};
