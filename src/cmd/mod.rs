//! The subcommands.

pub(crate) mod apps;
pub(crate) mod check;
pub(crate) mod collector;
pub(crate) mod demo;
pub(crate) mod drains;
pub(crate) mod keys;
pub(crate) mod kubesim;
pub(crate) mod logs;
pub(crate) mod sinks;
pub(crate) mod streamer;
pub(crate) mod up;
