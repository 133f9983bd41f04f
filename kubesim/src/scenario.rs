//! Scenarios: the plan of what the simulated cluster does, and the TOML files that describe one.
//!
//! This folder contains data and validation only and depends on `access` for the users.

mod error;
mod file;
mod plan;
mod schema;
mod validate;

pub use error::ScenarioError;
pub use plan::{
    ContainerPlan, Fault, FaultKind, LinePlan, LogFiles, Output, PodPlan, Program, RestartPolicy, Role, Scenario,
};
