//! Models of what the product does not own: clocks, disks, networks, and the end of a process.

pub mod clock;
pub mod disk;
pub mod network;
pub mod process;
