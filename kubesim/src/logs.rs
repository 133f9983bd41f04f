//! Container output: what containers write, and the logs that the node keeps of it.
//!
//! This folder depends on the scenario and the node's clock only, not on pods or the API. `programs`
//! and `line_template` generate lines, `writer` writes them on time, `container_log` stores them in
//! memory, `cri_files` and `rotated_files` on disk, and `reader` reads them for a log request.

pub(crate) mod clock;
pub(crate) mod container_log;
pub(crate) mod cri_files;
pub(crate) mod line_template;
pub(crate) mod programs;
pub(crate) mod reader;
mod rotated_files;
pub(crate) mod writer;
