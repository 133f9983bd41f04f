//! Which line's way is measured, and when it was where: told what comes, it says when it is done.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

/// How long places have to show a first line.
const WARMING: Duration = Duration::from_secs(5);

/// How long a line may take on its way.
pub(super) const WAY: Duration = Duration::from_secs(20);

/// Lines of each place that are remembered until the one whose way is measured is known.
const REMEMBERED: usize = 100_000;

/// A line: who printed it, and what the log API prints of it.
pub(super) type Line = (String, String);

/// A line at one of the places.
pub(super) enum Seen {
    Api(Line),
    /// When the bus accepted it.
    Bus(Line, SystemTime),
    Streamer(Line),
}

/// Where a container's lines are to come, beside the log API.
#[derive(Clone, Copy, Default)]
pub(super) struct Wanted {
    pub(super) bus: bool,
    pub(super) streamer: bool,
}

/// When a line was where.
pub(super) struct Times {
    pub(super) api: SystemTime,
    pub(super) accepted: Option<SystemTime>,
    pub(super) bus: Option<SystemTime>,
    pub(super) streamer: Option<SystemTime>,
}

/// Waits for a line that the API shows, then for the same one elsewhere.
///
/// The first reader of a container waits for what it does not know yet, so the line is one that comes when each place has shown one of that container, or has had its time.
pub(super) struct Watch {
    wanted: HashMap<String, Wanted>,
    chosen: Option<(Line, SystemTime)>,
    /// The newest that could have been, for want of a better one.
    newest: Option<(Line, SystemTime)>,
    bus: HashMap<Line, (SystemTime, SystemTime)>,
    streamer: HashMap<Line, SystemTime>,
    shown: HashSet<(Place, String)>,
    warm_by: Option<Instant>,
    until: Instant,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Place {
    Bus,
    Streamer,
}

impl Watch {
    /// Of these containers, waiting so long for one to print.
    pub(super) fn new(wanted: HashMap<String, Wanted>, wait: Duration, now: Instant) -> Self {
        Self {
            wanted,
            chosen: None,
            newest: None,
            bus: HashMap::new(),
            streamer: HashMap::new(),
            shown: HashSet::new(),
            warm_by: None,
            until: now + wait,
        }
    }

    /// When to give up waiting, and ask [`overdue`](Self::overdue).
    pub(super) fn until(&self) -> Instant {
        self.until
    }

    /// Whether the line has been wherever it is to come.
    pub(super) fn is_done(&self) -> bool {
        let Some((line, _)) = &self.chosen else { return false };
        let wanted = self.wanted.get(&line.0).copied().unwrap_or_default();
        (!wanted.bus || self.bus.contains_key(line)) && (!wanted.streamer || self.streamer.contains_key(line))
    }

    /// A line came.
    pub(super) fn saw(&mut self, seen: Seen, now: Instant, time: SystemTime) {
        match seen {
            Seen::Api(line) => self.saw_printed(line, now, time),
            Seen::Bus(line, accepted) => {
                self.shown.insert((Place::Bus, line.0.clone()));
                if self.bus.len() < REMEMBERED {
                    self.bus.insert(line, (accepted, time));
                }
            }
            Seen::Streamer(line) => {
                self.shown.insert((Place::Streamer, line.0.clone()));
                if self.streamer.len() < REMEMBERED {
                    self.streamer.insert(line, time);
                }
            }
        }
    }

    fn saw_printed(&mut self, line: Line, now: Instant, time: SystemTime) {
        if self.chosen.is_some() {
            return;
        }
        let wanted = self.wanted.get(&line.0).copied().unwrap_or_default();
        let has_shown = |place| self.shown.contains(&(place, line.0.clone()));
        let is_warm = (!wanted.bus || has_shown(Place::Bus)) && (!wanted.streamer || has_shown(Place::Streamer));
        if is_warm || *self.warm_by.get_or_insert(now + WARMING) <= now {
            self.choose((line, time), now);
        } else {
            self.newest = Some((line, time));
        }
    }

    /// The time is over. Whether to go on all the same, with a line that came too early.
    pub(super) fn overdue(&mut self, now: Instant) -> bool {
        match self.newest.take() {
            Some(newest) if self.chosen.is_none() => {
                self.choose(newest, now);
                true
            }
            _ => false,
        }
    }

    fn choose(&mut self, line: (Line, SystemTime), now: Instant) {
        self.chosen = Some(line);
        self.until = now + WAY;
    }

    /// The line, where it was to come, and when it was there. `None`: nobody printed.
    pub(super) fn end(self) -> Option<(Line, Wanted, Times)> {
        let (line, api) = self.chosen.or(self.newest)?;
        let wanted = self.wanted.get(&line.0).copied().unwrap_or_default();
        let (accepted, bus) = self.bus.get(&line).copied().unzip();
        let streamer = self.streamer.get(&line).copied();
        let times = Times {
            api,
            accepted,
            bus,
            streamer,
        };
        Some((line, wanted, times))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: Wanted = Wanted {
        bus: true,
        streamer: true,
    };

    fn line(number: u32) -> Line {
        ("shop web".to_owned(), format!("2026-11-23T07:00:00Z line {number}"))
    }

    fn watch() -> (Watch, Instant, SystemTime) {
        let now = Instant::now();
        let wanted = HashMap::from([("shop web".to_owned(), BOTH)]);
        (Watch::new(wanted, Duration::from_secs(20), now), now, SystemTime::now())
    }

    #[test]
    fn a_line_is_chosen_when_all_places_have_shown_one_and_its_times_are_its_own() {
        let (mut watch, now, time) = watch();
        watch.saw(Seen::Api(line(0)), now, time);
        watch.saw(Seen::Bus(line(0), time), now, time);
        watch.saw(Seen::Streamer(line(0)), now, time);
        assert!(!watch.is_done(), "it waited for what the reader did not know");
        let later = |millis| time + Duration::from_millis(millis);
        // The bus may be quicker than our own look at the API.
        watch.saw(Seen::Bus(line(1), later(1)), now, later(2));
        watch.saw(Seen::Api(line(1)), now, later(3));
        watch.saw(Seen::Api(line(2)), now, later(4));
        assert!(!watch.is_done());
        watch.saw(Seen::Streamer(line(1)), now, later(5));
        assert!(watch.is_done());
        let (chosen, _, times) = watch.end().unwrap();
        assert_eq!(chosen, line(1));
        let all = (times.api, times.accepted, times.bus, times.streamer);
        assert_eq!(all, (later(3), Some(later(1)), Some(later(2)), Some(later(5))));
    }

    #[test]
    fn a_place_that_shows_nothing_is_waited_for_and_then_missing() {
        let (mut watch, now, time) = watch();
        watch.saw(Seen::Api(line(0)), now, time);
        watch.saw(Seen::Bus(line(0), time), now, time);
        watch.saw(Seen::Api(line(1)), now + WARMING, time);
        assert_eq!(watch.until(), now + WARMING + WAY);
        watch.saw(Seen::Bus(line(1), time), now, time);
        assert!(!watch.is_done() && !watch.overdue(now + WARMING + WAY));
        let (chosen, wanted, times) = watch.end().unwrap();
        assert_eq!(chosen, line(1));
        assert!(wanted.streamer && times.streamer.is_none() && times.bus.is_some());
    }

    #[test]
    fn who_prints_one_line_and_no_more_is_measured_by_that() {
        let (mut watch, now, time) = watch();
        assert!(!watch.overdue(now), "nobody printed");
        watch.saw(Seen::Api(line(0)), now, time);
        assert!(watch.overdue(now + WAY));
        watch.saw(Seen::Bus(line(0), time), now, time);
        watch.saw(Seen::Streamer(line(0)), now, time);
        assert!(watch.is_done());
    }
}
