//! Runs the whole data path on virtual time, with faults from a seed, and checks every promise.

#![allow(
    clippy::disallowed_methods,
    reason = "it stands in for the machine, and reads the source code"
)]

pub mod check;
pub mod coverage;
pub mod known;
pub mod machine;
pub mod plan;
pub mod pubsub;
pub mod run;
pub mod shrink;
pub mod trace;
pub mod world;
