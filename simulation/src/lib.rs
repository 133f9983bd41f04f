//! A deterministic simulation of the data path: one process, virtual time, one seed.

pub mod pubsub;
