//! The promises, checked against what every container printed.
//!
//! [`printed`] holds the truth. [`tail`] checks what one client received, [`drain`] what one
//! receiver received. A broken promise is a [`Violation`].

pub mod drain;
pub mod printed;
pub mod tail;
mod violation;

pub use violation::{Rule, Violation, limit};

use crate::plan::{Engine, Kind, Plan};

/// What a bus may do to the lines that it has accepted.
#[derive(Clone, Copy, Debug, Default)]
pub struct BusLimits {
    /// It can deliver a line after its gap was declared.
    pub may_be_late: bool,
    /// It can lose lines: its files are damaged.
    pub may_lose: bool,
}

impl BusLimits {
    /// Returns what the bus of a plan may do.
    pub fn of(plan: &Plan) -> Self {
        Self {
            may_be_late: plan.engine == Engine::PubSub,
            may_lose: plan.kinds().contains(&Kind::Damage),
        }
    }
}
