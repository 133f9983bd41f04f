//! What containers write and how it is kept: as the kubelet's log files are, in memory and bounded.
//!
//! [`container_log::Log`] is one container instance's log, [`reader::Reader`] a cursor into it, [`writer`] produces the lines.

pub(crate) mod clock;
pub(crate) mod container_log;
pub(crate) mod cri_files;
pub(crate) mod line_template;
pub(crate) mod programs;
pub(crate) mod reader;
pub(crate) mod writer;
