//! The registry of one machine, in a file.

mod content;
mod locked_file;
mod store;

pub use store::FileRegistry;
