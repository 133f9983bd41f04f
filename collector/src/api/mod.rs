//! Reads containers' logs through the Kubernetes log API and feeds them to `stream`; depends on
//! nothing in `files` or `supervisor`.

pub mod follow;
pub mod follow_slots;
pub mod identity;
pub mod next_step;
pub mod outcome;
pub mod refusals;
pub mod request;
pub mod response;
pub mod rotation;
pub mod scan;
pub mod stall;
