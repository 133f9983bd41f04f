//! Judges the lines of each unit that a tail received: those that are missing are declared where they
//! are missing, and nothing else is.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    ops::Range,
    time::Duration,
};

use bus::{Epoch, StreamId};

use super::{Checker, Delivered, has_lost_start, short_stream};
use crate::check::{
    Rule,
    printed::{Unit, UnitLines},
    received::{Notice, Received},
};

/// A place between two delivered lines of a unit, where lines can be missing.
struct Place<'a> {
    lines: &'a UnitLines,
    /// The indexes of the missing lines.
    missing: Range<usize>,
    before: Option<&'a Delivered<'a>>,
    after: Option<&'a Delivered<'a>>,
    /// Lines of the unit may arrive in several streams.
    may_repeat: bool,
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let printed = |index: usize| self.lines.times.get(index).copied().unwrap_or_default().as_secs_f64();
        let process = &self.lines.process;
        let (first, end) = (self.missing.start, self.missing.end);
        match end.saturating_sub(first) {
            0 => write!(f, "{process}, in front of line {end}")?,
            1 => write!(f, "{process}, line {first}, printed at {:.3} s", printed(first))?,
            _ => write!(
                f,
                "{process}, lines {first} to {}, printed from {:.3} to {:.3} s",
                end - 1,
                printed(first),
                printed(end - 1)
            )?,
        }
        for neighbour in [self.before, self.after].into_iter().flatten() {
            write!(f, "; {neighbour}")?;
        }
        Ok(())
    }
}

/// The notices between two neighbours.
#[derive(Default)]
struct Declared {
    /// Lines of gaps whose size is known.
    known: u64,
    /// Those of them that the bus did not deliver.
    undelivered: u64,
    /// Gaps of unknown size.
    unknown: u64,
    /// Whether lines may be missing: nothing proves it.
    is_suspected: bool,
    /// The reasons.
    reasons: BTreeSet<String>,
    /// When the first of the notices arrived.
    at: Option<Duration>,
}

impl Declared {
    fn add(&mut self, notice: &Notice) {
        self.reasons.insert(notice.reason.clone());
        self.at.get_or_insert(notice.at);
    }
}

impl<'a> Checker<'a> {
    pub(super) fn check_units(&mut self) {
        let printed = self.printed;
        let unseen_until = self.unseen_until();
        for (unit, lines) in printed.units().filter(|(_, lines)| lines.app == self.log.app) {
            // No stream names an instance that was never seen: the next one or the one before reports it.
            let is_unseen = !self.by_unit.contains_key(unit) && !self.notices.contains_key(unit);
            let until = unseen_until.get(lines.process.as_str());
            let is_reported = lines.times.last().zip(until).is_some_and(|(last, until)| last <= until);
            if is_unseen && (is_reported || printed.is_unheard(&lines.process)) {
                continue;
            }
            self.check_unit(unit, lines);
        }
        let skipped = self.log.received.iter().filter_map(|received| match received {
            Received::Notice(notice) if notice.stream.is_none() => Some(notice),
            _ => None,
        });
        let (mut known, mut has_unknown) = (0, false);
        for notice in skipped.filter(|notice| covers_lines(notice)) {
            known += notice.count.unwrap_or(0);
            has_unknown |= notice.count.is_none();
        }
        if self.unexplained > known && !has_unknown {
            let missing = self.unexplained;
            self.fail(
                Rule::SilentLoss,
                format!("{missing} lines are missing, and notices of the tail explain {known}"),
            );
        }
    }

    /// Returns by process until when instances can have printed that were never seen: a notice before
    /// the first line of a stream, or behind its last one, says that lines may be missing.
    fn unseen_until(&self) -> BTreeMap<&'a str, Duration> {
        let mut until = BTreeMap::new();
        for received in &self.log.received {
            if let Received::Notice(notice) = received
                && let (Some(stream), Some(process), Some(first)) = (&notice.stream, &notice.process, notice.first)
                && (notice.reason.as_str(), notice.count) == ("suspected", None)
            {
                let numbers = self.numbers.get(stream.as_str());
                let last = numbers.and_then(BTreeMap::last_key_value);
                if first == 0 || last.is_none_or(|(last, _)| *last < first) {
                    let latest = until.entry(process.as_str()).or_insert(notice.at);
                    *latest = notice.at.max(*latest);
                }
            }
        }
        until
    }

    fn check_unit(&mut self, unit: &'a Unit, lines: &UnitLines) {
        let delivered = self.by_unit.remove(unit).unwrap_or_default();
        let notices = self.notices.remove(unit).unwrap_or_default();
        let first_due = lines.times.partition_point(|at| *at <= self.log.since);
        let start = delivered.first().map_or(first_due, |line| line.index.min(first_due));
        let delivered_end = delivered.last().map(|line| line.index + 1);
        let end = if self.log.is_complete {
            self.printed.collectable(lines).max(delivered_end.unwrap_or_default())
        } else {
            delivered_end.unwrap_or(start)
        };
        let may_repeat = self.may_repeat.contains(unit)
            || delivered
                .iter()
                .any(|line| has_lost_start(&self.interrupted, line.stream));
        let places = self.assign(&delivered, &notices);
        for place in 0..=delivered.len() {
            let from = if place == 0 {
                start
            } else {
                delivered[place - 1].index + 1
            };
            let to = delivered.get(place).map_or(end, |line| line.index);
            // Nor is what lies behind the end of an answer that may end before the gap's lines.
            let is_behind = place == delivered.len() && !self.log.is_complete;
            let is_edge = place == 0 && start == to || is_behind;
            let missing = to.saturating_sub(from) as u64;
            let declared = places.get(&place);
            // What was lost before the tail began is not its concern.
            if !is_edge {
                let place_of = Place {
                    lines,
                    missing: from..to.max(from),
                    before: place.checked_sub(1).and_then(|before| delivered.get(before)),
                    after: delivered.get(place),
                    may_repeat,
                };
                self.check_place(&place_of, missing, declared);
            }
        }
    }

    /// Assigns notices to the place before the delivered line of this index.
    fn assign(
        &mut self,
        delivered: &[Delivered<'a>],
        notices: &[(&'a Notice, Option<usize>)],
    ) -> BTreeMap<usize, Declared> {
        let mut places: BTreeMap<usize, Declared> = BTreeMap::new();
        let mut false_gaps = Vec::new();
        for (notice, before) in notices {
            let (Some(stream), Some(first)) = (&notice.stream, notice.first) else {
                continue;
            };
            let numbers = self.numbers.get(stream.as_str());
            let place_of = |seq: u64| {
                let of_stream = |line: &Delivered<'_>| line.stream == stream;
                let next = delivered.iter().position(|line| of_stream(line) && line.seq >= seq);
                next.unwrap_or_else(|| {
                    let last = delivered.iter().rposition(of_stream);
                    // A reader waits for what precedes a gap if it knows nothing else of the stream; what
                    // follows in a newer stream can arrive meanwhile.
                    let later = || delivered.iter().position(|line| is_older(stream, line.stream));
                    // History shows it at its time, which can be that of a checkpoint from before the last
                    // lines.
                    let is_newest = delivered.iter().all(|line| is_older(line.stream, stream));
                    let newest = || is_newest.then_some(delivered.len());
                    let arrived = || before.map(|index| delivered.partition_point(|line| line.index <= index));
                    let place = last.map(|last| last + 1).or_else(later).or_else(newest);
                    place.or_else(arrived).unwrap_or(0)
                })
            };
            match notice.count {
                None => {
                    let declared = places.entry(place_of(first)).or_default();
                    if notice.reason == "suspected" {
                        declared.is_suspected = true;
                    } else {
                        declared.unknown += 1;
                    }
                    declared.add(notice);
                }
                Some(count) => {
                    let is_delivered = |seq: u64| numbers.is_some_and(|numbers| numbers.contains_key(&seq));
                    let is_excused = |line: &(&str, u64)| self.late.contains(line) || self.lost_later.contains(line);
                    let is_false = |seq: u64| is_delivered(seq) && !is_excused(&(stream.as_str(), seq));
                    let found = (first..first + count).filter(|seq| is_false(*seq)).count();
                    if found > 0 {
                        false_gaps.push(format!(
                            "notice ({}) at {:.3} s of {count} lines at {} #{first} includes {found} lines that were delivered",
                            notice.reason,
                            notice.at.as_secs_f64(),
                            short_stream(stream)
                        ));
                    }
                    for seq in (first..first + count).filter(|seq| !is_delivered(*seq)) {
                        let declared = places.entry(place_of(seq)).or_default();
                        declared.known += 1;
                        declared.undelivered += u64::from(notice.reason == "undelivered");
                        declared.add(notice);
                    }
                }
            }
        }
        for detail in false_gaps {
            self.fail(Rule::FalseGap, detail);
        }
        places
    }

    fn check_place(&mut self, place: &Place<'_>, missing: u64, declared: Option<&Declared>) {
        let Some(declared) = declared else {
            if missing > 0 && self.has_notice_of_tail() {
                self.unexplained += missing;
            } else if missing > 0 {
                self.fail(
                    Rule::SilentLoss,
                    format!("missing without a notice ({missing}): {place}"),
                );
            }
            return;
        };
        let reasons: Vec<_> = declared.reasons.iter().map(String::as_str).collect();
        let reasons = reasons.join(", ");
        let at = declared.at.unwrap_or_default().as_secs_f64();
        let notice = format!("notice ({reasons}) at {at:.3} s");
        let known = declared.known;
        // Lines that a damaged bus lost in one stream may have arrived in another.
        let is_repeated = place.may_repeat && self.log.bus.may_lose;
        let least = known - if is_repeated { declared.undelivered } else { 0 };
        if (least..known).contains(&missing) {
            return;
        }
        if declared.unknown == 0 && missing > known && self.log.bus.may_lose && self.has_notice_of_tail() {
            // Of a stream that is lost as a whole, only the bus says that lines are missing.
            self.unexplained += missing - known;
        } else if declared.unknown == 0 && known != missing && (missing < known || !declared.is_suspected) {
            let rule = if missing == 0 { Rule::FalseGap } else { Rule::WrongCount };
            self.fail(
                rule,
                format!("{notice} declares {known} lines, missing are {missing}: {place}"),
            );
        } else if reasons == "undelivered" && missing > 0 && self.must_deliver() {
            self.fail(
                Rule::Undelivered,
                format!("{notice} blames the bus, which has lost none, for {missing} lines: {place}"),
            );
        } else if declared.unknown > 0 && missing < known {
            self.fail(
                Rule::WrongCount,
                format!("{notice} declares at least {known} lines, missing are {missing}: {place}"),
            );
        } else if declared.unknown > 0 && missing == known {
            self.fail(
                Rule::FalseGap,
                format!("{notice} declares {known} lines and an unknown number, missing are {missing}: {place}"),
            );
        }
    }

    /// Returns whether the bus must have delivered every line by now.
    fn must_deliver(&self) -> bool {
        !self.log.bus.may_lose && (self.log.is_complete || !self.log.bus.may_be_late)
    }

    fn has_notice_of_tail(&self) -> bool {
        self.log.received.iter().any(|received| match received {
            Received::Notice(notice) => notice.stream.is_none() && covers_lines(notice),
            Received::Begin | Received::Cursor | Received::Line { .. } => false,
        })
    }
}

/// Returns whether a stream of a unit is older than another one.
fn is_older(stream: &str, other: &str) -> bool {
    epoch(stream)
        .zip(epoch(other))
        .is_some_and(|(epoch, other)| epoch < other)
}

pub(super) fn epoch(stream: &str) -> Option<Epoch> {
    stream.parse::<StreamId>().ok().map(|id| id.epoch())
}

/// Returns whether a notice without a stream is about missing lines of this tail.
fn covers_lines(notice: &Notice) -> bool {
    matches!(
        notice.reason.as_str(),
        "slow_client"
            | "interrupted"
            | "expired"
            | "unreadable"
            | "history_too_large"
            | "history_timeout"
            | "history_failed"
    )
}
