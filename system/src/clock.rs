//! The two clocks of a machine. They are never compared with each other.
//!
//! The *steady* clock measures durations: timeouts, intervals, ages. It never steps. The *wall*
//! clock is the time of day: an operator or NTP can set it forward or back, and two machines
//! disagree. It is for what a person reads and for other systems' timestamps.

#![allow(clippy::disallowed_methods, reason = "the only place that reads the clocks")]

use std::time::{Duration, SystemTime};

pub use tokio::time::Instant;

/// Returns the time of the steady clock.
#[inline]
pub fn steady() -> Instant {
    Instant::now()
}

/// Returns the time since `earlier` on the steady clock; zero if `earlier` is in the future.
#[inline]
pub fn since(earlier: Instant) -> Duration {
    steady().saturating_duration_since(earlier)
}

/// Returns the time of the wall clock since 1970, UTC; zero if it is set before 1970.
#[inline]
pub fn wall() -> Duration {
    #[cfg(feature = "simulation")]
    if let Some(machine) = crate::simulation::current() {
        return machine.wall();
    }
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
}

/// Returns the time of the wall clock.
#[inline]
pub fn wall_time() -> SystemTime {
    SystemTime::UNIX_EPOCH + wall()
}
