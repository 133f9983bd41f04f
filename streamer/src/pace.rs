//! The bus is read no faster than somebody takes what comes.

use std::time::Duration;

use tokio::time::Instant;

use crate::ring::Ring;

/// How often it is looked whether the fastest reader has caught up.
pub(crate) const LOOK: Duration = Duration::from_millis(5);

/// Readers who take nothing for so long are not waited for.
const STALL: Duration = Duration::from_secs(5);

/// Whether a hub is to wait for its readers before it takes more from the bus.
///
/// After an outage the bus hands out in a second what was printed in a minute, which no client's connection takes: it would run through the ring, and a reader that did
/// nothing wrong would be told of lines it missed. So the hub stays within half a ring of the fastest reader, and the bus keeps the rest: up to a limit, for who is slower
/// than the app prints shall not be shown the past for ever.
#[derive(Debug)]
pub(crate) struct Pace {
    max_lag: Duration,
    /// When a batch last came, and how old it was by then.
    last: Option<(Instant, Duration)>,
    furthest: u64,
    /// When the fastest reader was last seen to move, while it is waited for.
    moved: Option<Instant>,
}

impl Pace {
    /// One that lets what comes grow so old at most.
    pub(crate) fn new(max_lag: Duration) -> Self {
        Self {
            max_lag,
            last: None,
            furthest: 0,
            moved: None,
        }
    }

    /// Learns of a batch that was so old when it arrived.
    pub(crate) fn saw(&mut self, age: Duration) {
        self.last = Some((Instant::now(), age));
    }

    /// Whether to take no more for now; to be asked again after [`LOOK`].
    pub(crate) fn holds(&mut self, ring: &Ring, now: Instant) -> bool {
        if !ring.is_ahead_of_all() {
            self.moved = None;
            return false;
        }
        let furthest = ring.furthest();
        if self.moved.is_none() || std::mem::replace(&mut self.furthest, furthest) != furthest {
            self.furthest = furthest;
            self.moved = Some(now);
        }
        let behind = self
            .last
            .map_or(Duration::ZERO, |(at, age)| now.duration_since(at) + age);
        behind < self.max_lag && self.moved.is_some_and(|moved| now.duration_since(moved) < STALL)
    }
}

#[cfg(test)]
mod tests {
    use bus::PublishTime;

    use super::*;
    use crate::{
        charge::Kept,
        merge::Merge,
        ring::{Bounds, Place},
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
            ring.extend(merge.take_all());
        }
    }

    fn ring() -> (Ring, Place) {
        let bounds = Bounds {
            own: 20_000,
            all: 1 << 20,
            fair: 20_000,
        };
        let ring = Ring::new(PublishTime(0), bounds, Kept::default());
        let place = ring.end();
        (ring, place)
    }

    #[test]
    fn a_burst_waits_until_the_fastest_reader_has_taken_what_is_there() {
        let (ring, mut place) = ring();
        let (mut pace, now) = (Pace::new(MAX_LAG), Instant::now());
        fill(&ring, 0..2);
        assert!(!pace.holds(&ring, now), "there is room");
        fill(&ring, 2..100);
        assert!(pace.holds(&ring, now));
        while !ring.take(place).frames.is_empty() {
            place = ring.take(place).place;
        }
        assert!(!pace.holds(&ring, now), "it has taken what was there");
    }

    #[test]
    fn readers_who_take_nothing_are_not_waited_for_nor_is_anybody_beyond_the_limit() {
        let (ring, place) = ring();
        let (mut pace, now) = (Pace::new(MAX_LAG), Instant::now());
        fill(&ring, 0..100);
        assert!(pace.holds(&ring, now));
        assert!(pace.holds(&ring, now + STALL / 2));
        assert!(!pace.holds(&ring, now + STALL));
        ring.take(place);
        fill(&ring, 100..300);
        assert!(pace.holds(&ring, now + STALL), "one that moves again is");
        pace.saw(MAX_LAG);
        assert!(!pace.holds(&ring, now + STALL));
    }
}
