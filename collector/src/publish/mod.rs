//! Publishes what the streams number.

pub mod checkpoint;
pub mod context;
pub mod entry;
pub mod file_checkpoint;
pub mod gap;
pub mod outbox;
pub mod rate_limit;
pub mod spool;
