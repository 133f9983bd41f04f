//! The registry of one machine: reads, locks and replaces files; it does not interpret drains or
//! keys.

mod content;
mod locked_file;
mod store;

pub use store::FileRegistry;
