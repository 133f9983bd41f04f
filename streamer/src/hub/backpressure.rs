//! Backpressure: a hub reads the bus no faster than its fastest tail reads the ring.

use std::time::Duration;

use system::clock::{self, Instant};

use crate::hub::ring::Ring;

/// How often a paused hub checks whether the fastest tail has caught up.
pub(crate) const CHECK_INTERVAL: Duration = Duration::from_millis(5);

/// Tails that read nothing for this long do not pause the hub.
const STALL: Duration = Duration::from_secs(5);

/// Decides whether a hub pauses reading from the bus.
///
/// After an outage the bus delivers in a second what was logged in a minute, more than a client's
/// connection takes. Without backpressure it would run through the ring and every tail would skip
/// lines. So the hub stays within half a ring of its fastest tail, and the bus keeps the rest. The
/// lag is limited by `max_lag`: a client slower than its app skips lines rather than falling behind
/// without bound.
#[derive(Debug)]
pub(crate) struct Backpressure {
    max_lag: Duration,
    /// Arrival of the last batch, and its age at that time.
    last: Option<(Instant, Duration)>,
    furthest: u64,
    /// When the fastest tail last advanced. `None` while the hub is not paused.
    advanced: Option<Instant>,
}

impl Backpressure {
    pub(crate) fn new(max_lag: Duration) -> Self {
        Self {
            max_lag,
            last: None,
            furthest: 0,
            advanced: None,
        }
    }

    /// Records the age of a batch that has just arrived.
    pub(crate) fn record_age(&mut self, age: Duration) {
        self.last = Some((clock::steady(), age));
    }

    /// Returns whether to pause. While it does, check again every [`CHECK_INTERVAL`].
    pub(crate) fn is_paused(&mut self, ring: &Ring, now: Instant) -> bool {
        if !ring.is_half_unread() {
            self.advanced = None;
            return false;
        }
        let furthest = ring.furthest();
        if self.advanced.is_none() || std::mem::replace(&mut self.furthest, furthest) != furthest {
            self.furthest = furthest;
            self.advanced = Some(now);
        }
        let lag = self
            .last
            .map_or(Duration::ZERO, |(at, age)| now.duration_since(at) + age);
        lag < self.max_lag
            && self
                .advanced
                .is_some_and(|advanced| now.duration_since(advanced) < STALL)
    }
}

#[cfg(test)]
mod tests {
    use bus::PublishTime;

    use super::*;
    use crate::{
        frame::memory::MemoryBudget,
        hub::{
            merge::Merge,
            ring::{RingLimits, RingPosition},
        },
        testing::{event, metadata},
    };

    const MAX_LAG: Duration = Duration::from_secs(60);

    fn fill(ring: &Ring, batches: std::ops::Range<u64>) {
        let mut merge = Merge::new("shop".parse().unwrap());
        let now = bus::reassembly::Now {
            elapsed: Duration::ZERO,
            bus: PublishTime::now(),
        };
        for batch in batches {
            merge.push(event(&metadata("web"), batch * 10, &[0; 10], 0), now);
            ring.extend(merge.release_all(), None);
        }
    }

    fn ring() -> (Ring, RingPosition) {
        let limits = RingLimits {
            own: 20_000,
            total: 1 << 20,
            fair: 20_000,
        };
        let ring = Ring::new(PublishTime(0), true, limits, MemoryBudget::default());
        let position = ring.end();
        (ring, position)
    }

    #[test]
    fn the_hub_pauses_until_the_fastest_tail_has_caught_up() {
        let (ring, mut position) = ring();
        let (mut backpressure, now) = (Backpressure::new(MAX_LAG), Instant::now());
        fill(&ring, 0..2);
        assert!(!backpressure.is_paused(&ring, now), "the ring has room");
        fill(&ring, 2..100);
        assert!(backpressure.is_paused(&ring, now));
        while !ring.read(position).frames.is_empty() {
            position = ring.read(position).position;
        }
        assert!(!backpressure.is_paused(&ring, now), "the tail has read everything");
    }

    #[test]
    fn the_hub_resumes_when_all_tails_stall_or_the_lag_limit_is_reached() {
        let (ring, position) = ring();
        let (mut backpressure, now) = (Backpressure::new(MAX_LAG), Instant::now());
        fill(&ring, 0..100);
        assert!(backpressure.is_paused(&ring, now));
        assert!(backpressure.is_paused(&ring, now + STALL / 2));
        assert!(!backpressure.is_paused(&ring, now + STALL));
        ring.read(position);
        fill(&ring, 100..300);
        assert!(backpressure.is_paused(&ring, now + STALL), "a tail advances again");
        backpressure.record_age(MAX_LAG);
        assert!(!backpressure.is_paused(&ring, now + STALL));
    }
}
