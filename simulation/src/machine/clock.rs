//! The wall clock of a machine.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

use system::clock::Instant;

/// The true time, and how far this machine is from it.
pub struct WallClock {
    /// The steady clock when the simulation began.
    start: Instant,
    /// The true time then, since 1970.
    epoch: Duration,
    /// How far the clock was stepped, in milliseconds.
    stepped: AtomicI64,
    /// How fast it drifts, in millionths of the elapsed time.
    drift: AtomicI64,
}

impl WallClock {
    /// Creates a clock that is right.
    pub fn new(start: Instant, epoch: Duration) -> Self {
        Self {
            start,
            epoch,
            stepped: AtomicI64::new(0),
            drift: AtomicI64::new(0),
        }
    }

    /// Returns the time since 1970.
    pub fn now(&self) -> Duration {
        let elapsed = system::clock::since(self.start);
        let seconds = i64::try_from(elapsed.as_secs()).unwrap_or(i64::MAX);
        let drifted = seconds.saturating_mul(self.drift.load(Ordering::Relaxed));
        let off = self.stepped.load(Ordering::Relaxed) * 1000 + drifted;
        let right = self.epoch + elapsed;
        let distance = Duration::from_micros(off.unsigned_abs());
        if off >= 0 {
            right + distance
        } else {
            right.saturating_sub(distance)
        }
    }

    /// Steps the clock by this many milliseconds.
    pub fn step(&self, millis: i64) {
        self.stepped.fetch_add(millis, Ordering::Relaxed);
    }

    /// Lets the clock drift by this many millionths.
    pub fn set_drift(&self, millionths: i64) {
        self.drift.store(millionths, Ordering::Relaxed);
    }
}
