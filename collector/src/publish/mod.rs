//! Publishes numbered lines exactly once: rate limits, outbox, spool and checkpoints; depends on
//! the bus and the shared types, and on nothing that reads logs.

pub mod checkpoint;
pub mod context;
pub mod entry;
pub mod file_checkpoint;
#[cfg(test)]
mod full_disk;
pub mod gap;
pub mod notices;
pub mod outbox;
pub mod rate_limit;
pub mod spool;
