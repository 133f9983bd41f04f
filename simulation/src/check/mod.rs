//! The promises, checked against what every container printed.
//!
//! [`printed`] holds the truth. [`tail`] checks what one client [`received`], [`drain`] what one
//! receiver received. A broken promise is a [`Violation`].

pub mod drain;
pub mod printed;
pub mod received;
pub mod tail;
mod violation;

pub use violation::{Rule, Violation, limit};

use crate::plan::{Engine, Kind, Plan};

/// Shortens a stream id for a person: `web/7a91c89d/…e755b125`, container, instance and epoch.
pub fn short_stream(stream: &str) -> String {
    let parts: Vec<_> = stream.split('/').collect();
    let [_, container, instance, epoch] = parts[..] else {
        return stream.to_owned();
    };
    let instance: String = instance.chars().take(8).collect();
    let epoch = epoch.rsplit('-').next().unwrap_or(epoch);
    format!("{container}/{instance}/…{epoch}")
}

/// The kinds of faults after which a bus delivers lines later than readers wait for them.
const DISORDER: [Kind; 3] = [Kind::BusDown, Kind::BusDisorder, Kind::BusErrors];

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
            may_be_late: plan.engine == Engine::PubSub && plan.kinds().iter().any(|kind| DISORDER.contains(kind)),
            may_lose: plan.kinds().contains(&Kind::Damage),
        }
    }
}
