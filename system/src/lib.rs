//! All that the product gets from its machine: clocks, files, randomness, tasks and sockets.
//!
//! Other crates use these functions and no others; `clippy.toml` forbids the rest. So it shows which
//! code asks for the time, writes files or draws random numbers, and a simulation can stand in for
//! the machine (feature `simulation`): virtual time, disks and networks with faults, and one seed.
//! Without the feature every function is the operating system's, or one call to it.

pub mod clock;
pub mod collections;
pub mod files;
pub mod net;
pub mod random;
#[cfg(feature = "simulation")]
pub mod simulation;
pub mod task;

/// Marks a rare branch, so that simulations show whether they reach it. Nothing without the feature
/// `simulation`.
#[macro_export]
macro_rules! probe {
    ($name:literal) => {
        $crate::reach($name)
    };
}

#[doc(hidden)]
#[inline]
pub fn reach(_name: &'static str) {
    #[cfg(feature = "simulation")]
    simulation::reach(_name);
}
