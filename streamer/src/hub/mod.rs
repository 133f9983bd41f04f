//! One hub per app that is being read: it follows the app on the bus and keeps its newest lines.
//!
//! Depends on frames and lines; does not depend on tails, history reads and HTTP.

pub(crate) mod app_hub;
mod backpressure;
pub(crate) mod cached_history;
pub(crate) mod delivered;
pub(crate) mod hubs;
mod merge;
mod positions;
pub(crate) mod reader;
pub(crate) mod ring;
