//! Flags that several subcommands share, one file per topic. Each file turns its flags into the
//! settings of a library crate. Flags do not depend on a subcommand.

pub(crate) mod admin;
pub(crate) mod all_in_one;
pub(crate) mod auth;
pub(crate) mod bus;
pub(crate) mod collecting;
pub(crate) mod drains;
pub(crate) mod reading;
pub(crate) mod registry;
pub(crate) mod server;
#[cfg(feature = "demo")]
pub(crate) mod simulation;
pub(crate) mod storage;
pub(crate) mod validation;
pub(crate) mod values;
