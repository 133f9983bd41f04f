//! Scenarios: the plan of what the simulated cluster does, and the TOML files that describe one.

mod file;
mod plan;

pub use file::ScenarioError;
pub use plan::{
    ContainerPlan, Fault, FaultKind, LinePlan, LogFiles, Output, PodPlan, Program, RestartPolicy, Role, Scenario,
};
