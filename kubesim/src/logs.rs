//! What containers write and how it is kept: as the kubelet's log files are, in memory and bounded.
//!
//! [`log::Log`] is one container instance's log, [`reader::Reader`] a cursor into it, [`writing`] produces the lines.

pub(crate) mod clock;
pub(crate) mod files;
pub(crate) mod log;
pub(crate) mod programs;
pub(crate) mod reader;
pub(crate) mod template;
pub(crate) mod writing;
