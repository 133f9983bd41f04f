//! Chooses the line that is traced, and records when it arrived at each stage.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

/// How long to wait for a first line at every stage.
const WARM_UP: Duration = Duration::from_secs(5);

/// How long the traced line may take to pass all stages.
pub(super) const TRACE_TIMEOUT: Duration = Duration::from_secs(20);

/// Maximum number of lines stored per pipeline stage until the line to trace is chosen.
const MAX_STORED_LINES: usize = 100_000;

/// A line: the container's key, and the line as the log API prints it.
pub(super) type Line = (String, String);

/// A line at one of the stages.
pub(super) enum Sighting {
    Api(Line),
    /// With the time when the bus accepted it.
    Bus(Line, SystemTime),
    Streamer(Line),
}

/// The stages that a container's lines must pass, besides the log API.
#[derive(Clone, Copy, Default)]
pub(super) struct Stages {
    pub(super) bus: bool,
    pub(super) streamer: bool,
}

/// When the traced line passed each stage.
pub(super) struct Times {
    pub(super) api: SystemTime,
    pub(super) accepted: Option<SystemTime>,
    pub(super) bus: Option<SystemTime>,
    pub(super) streamer: Option<SystemTime>,
}

/// Waits for a line in the log API, then for the same line at the other stages.
///
/// The first reader of an app waits for the reorder window, so the traced line is one that arrives
/// after a line of that container has arrived at each stage, or after the warm-up.
pub(super) struct Watch {
    stages: HashMap<String, Stages>,
    traced: Option<(Line, SystemTime)>,
    /// The newest line before the warm-up ended, in case there is no later one.
    newest: Option<(Line, SystemTime)>,
    bus: HashMap<Line, (SystemTime, SystemTime)>,
    streamer: HashMap<Line, SystemTime>,
    warm: HashSet<(Stage, String)>,
    warm_up_ends: Option<Instant>,
    deadline: Instant,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Stage {
    Bus,
    Streamer,
}

impl Watch {
    /// Watches these containers and waits up to `timeout` for one to print.
    pub(super) fn new(stages: HashMap<String, Stages>, timeout: Duration, now: Instant) -> Self {
        Self {
            stages,
            traced: None,
            newest: None,
            bus: HashMap::new(),
            streamer: HashMap::new(),
            warm: HashSet::new(),
            warm_up_ends: None,
            deadline: now + timeout,
        }
    }

    /// Returns when to stop waiting and call [`choose_late`](Self::choose_late).
    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Returns whether the traced line has passed all stages.
    pub(super) fn is_done(&self) -> bool {
        let Some((line, _)) = &self.traced else { return false };
        let stages = self.stages.get(&line.0).copied().unwrap_or_default();
        (!stages.bus || self.bus.contains_key(line)) && (!stages.streamer || self.streamer.contains_key(line))
    }

    /// Records a line at a stage.
    pub(super) fn record(&mut self, sighting: Sighting, now: Instant, time: SystemTime) {
        match sighting {
            Sighting::Api(line) => self.record_printed(line, now, time),
            Sighting::Bus(line, accepted) => {
                self.warm.insert((Stage::Bus, line.0.clone()));
                if self.bus.len() < MAX_STORED_LINES {
                    self.bus.insert(line, (accepted, time));
                }
            }
            Sighting::Streamer(line) => {
                self.warm.insert((Stage::Streamer, line.0.clone()));
                if self.streamer.len() < MAX_STORED_LINES {
                    self.streamer.insert(line, time);
                }
            }
        }
    }

    fn record_printed(&mut self, line: Line, now: Instant, time: SystemTime) {
        if self.traced.is_some() {
            return;
        }
        let stages = self.stages.get(&line.0).copied().unwrap_or_default();
        let is_warm = |stage| self.warm.contains(&(stage, line.0.clone()));
        let all_warm = (!stages.bus || is_warm(Stage::Bus)) && (!stages.streamer || is_warm(Stage::Streamer));
        if all_warm || *self.warm_up_ends.get_or_insert(now + WARM_UP) <= now {
            self.choose((line, time), now);
        } else {
            self.newest = Some((line, time));
        }
    }

    /// At the deadline: chooses the newest line of the warm-up, if no line was chosen. Returns
    /// whether to wait for it.
    pub(super) fn choose_late(&mut self, now: Instant) -> bool {
        match self.newest.take() {
            Some(newest) if self.traced.is_none() => {
                self.choose(newest, now);
                true
            }
            _ => false,
        }
    }

    fn choose(&mut self, line: (Line, SystemTime), now: Instant) {
        self.traced = Some(line);
        self.deadline = now + TRACE_TIMEOUT;
    }

    /// Returns the traced line, its stages and its times; `None` if no container printed.
    pub(super) fn finish(self) -> Option<(Line, Stages, Times)> {
        let (line, api) = self.traced.or(self.newest)?;
        let stages = self.stages.get(&line.0).copied().unwrap_or_default();
        let (accepted, bus) = self.bus.get(&line).copied().unzip();
        let streamer = self.streamer.get(&line).copied();
        let times = Times {
            api,
            accepted,
            bus,
            streamer,
        };
        Some((line, stages, times))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: Stages = Stages {
        bus: true,
        streamer: true,
    };

    fn line(number: u32) -> Line {
        ("shop web".to_owned(), format!("2026-11-23T07:00:00Z line {number}"))
    }

    fn watch() -> (Watch, Instant, SystemTime) {
        let now = Instant::now();
        let stages = HashMap::from([("shop web".to_owned(), BOTH)]);
        (Watch::new(stages, Duration::from_secs(20), now), now, SystemTime::now())
    }

    #[test]
    fn the_traced_line_comes_after_all_stages_are_warm_and_has_its_own_times() {
        let (mut watch, now, time) = watch();
        watch.record(Sighting::Api(line(0)), now, time);
        watch.record(Sighting::Bus(line(0), time), now, time);
        watch.record(Sighting::Streamer(line(0)), now, time);
        assert!(!watch.is_done(), "a line of the warm-up is not traced");
        let later = |millis| time + Duration::from_millis(millis);
        // The bus may show a line before the log API does.
        watch.record(Sighting::Bus(line(1), later(1)), now, later(2));
        watch.record(Sighting::Api(line(1)), now, later(3));
        watch.record(Sighting::Api(line(2)), now, later(4));
        assert!(!watch.is_done());
        watch.record(Sighting::Streamer(line(1)), now, later(5));
        assert!(watch.is_done());
        let (traced, _, times) = watch.finish().unwrap();
        assert_eq!(traced, line(1));
        let all = (times.api, times.accepted, times.bus, times.streamer);
        assert_eq!(all, (later(3), Some(later(1)), Some(later(2)), Some(later(5))));
    }

    #[test]
    fn a_stage_that_shows_nothing_is_waited_for_and_then_missing() {
        let (mut watch, now, time) = watch();
        watch.record(Sighting::Api(line(0)), now, time);
        watch.record(Sighting::Bus(line(0), time), now, time);
        watch.record(Sighting::Api(line(1)), now + WARM_UP, time);
        assert_eq!(watch.deadline(), now + WARM_UP + TRACE_TIMEOUT);
        watch.record(Sighting::Bus(line(1), time), now, time);
        assert!(!watch.is_done() && !watch.choose_late(now + WARM_UP + TRACE_TIMEOUT));
        let (traced, stages, times) = watch.finish().unwrap();
        assert_eq!(traced, line(1));
        assert!(stages.streamer && times.streamer.is_none() && times.bus.is_some());
    }

    #[test]
    fn a_container_that_prints_a_single_line_is_traced_by_it() {
        let (mut watch, now, time) = watch();
        assert!(!watch.choose_late(now), "no line was printed");
        watch.record(Sighting::Api(line(0)), now, time);
        assert!(watch.choose_late(now + TRACE_TIMEOUT));
        watch.record(Sighting::Bus(line(0), time), now, time);
        watch.record(Sighting::Streamer(line(0)), now, time);
        assert!(watch.is_done());
    }
}
