//! Checks what a tail received.
//!
//! For each unit, the delivered lines are put in the order in which they were printed. Between two
//! neighbours lie as many lines as were not delivered. Gap notices are assigned to the places
//! between neighbours by their sequence numbers. The numbers must agree.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    ops::Range,
    time::Duration,
};

use bus::{Epoch, StreamId};
use jiff::{SignedDuration, Timestamp};

use super::{
    Rule, Violation,
    printed::{Printed, Unit, UnitLines},
    received::{Fields, Notice, Received, TailLog},
    short_stream,
};

/// Time from the creation of a stream until its first notices are published.
const START_PUBLISHED: SignedDuration = SignedDuration::from_secs(10);

/// A delivered line of a unit.
struct Delivered<'a> {
    index: usize,
    stream: &'a str,
    seq: u64,
    at: Duration,
}

impl fmt::Display for Delivered<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (stream, at) = (short_stream(self.stream), self.at.as_secs_f64());
        write!(f, "line {} arrived at {at:.3} s as {stream} #{}", self.index, self.seq)
    }
}

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

/// Checks a tail.
pub fn check(printed: &Printed, log: &TailLog) -> Vec<Violation> {
    let mut checker = Checker {
        printed,
        log,
        numbers: BTreeMap::new(),
        in_response: BTreeSet::new(),
        newest: BTreeMap::new(),
        newest_at_cursor: BTreeMap::new(),
        after_cursor: BTreeSet::new(),
        lost_later: BTreeSet::new(),
        interrupted: Vec::new(),
        declared: BTreeMap::new(),
        undelivered: Vec::new(),
        undelivered_before: BTreeMap::new(),
        has_failed_history: false,
        by_unit: BTreeMap::new(),
        late: BTreeSet::new(),
        notices: BTreeMap::new(),
        may_repeat: BTreeSet::new(),
        unexplained: 0,
        violations: Vec::new(),
    };
    checker.read();
    checker.check_units();
    checker.violations
}

struct Checker<'a> {
    printed: &'a Printed,
    log: &'a TailLog,
    /// The index of each delivered line, by stream and number.
    numbers: BTreeMap<&'a str, BTreeMap<u64, usize>>,
    /// What arrived in the current response.
    in_response: BTreeSet<(&'a str, u64)>,
    /// The highest number of each stream so far, and the index of its line. A response goes on
    /// behind its cursor, whatever came after the cursor before.
    newest: BTreeMap<&'a str, (u64, usize)>,
    /// The same at the last cursor.
    newest_at_cursor: BTreeMap<&'a str, (u64, usize)>,
    /// What arrived since the last cursor: a server cannot know that the client has it.
    after_cursor: BTreeSet<(&'a str, u64)>,
    /// Of that, what a bus lost before a later response, which declares it.
    lost_later: BTreeSet<(&'a str, u64)>,
    /// The times in which a bus lost batches without knowing which.
    interrupted: Vec<(Timestamp, Timestamp)>,
    /// Sequence numbers that a notice of their stream has declared so far.
    declared: BTreeMap<&'a str, Vec<Range<u64>>>,
    /// Those declared as undelivered since the last cursor that a new response may deliver: its
    /// history is read again.
    undelivered: Vec<(&'a str, Range<u64>)>,
    /// Those of earlier responses.
    undelivered_before: BTreeMap<&'a str, Vec<Range<u64>>>,
    /// Whether the history of the current response could not be read.
    has_failed_history: bool,
    by_unit: BTreeMap<&'a Unit, Vec<Delivered<'a>>>,
    /// Numbers that arrived after their gap was declared, which the modelled disorder allows, or
    /// because the client continued from a cursor in front of the notice.
    late: BTreeSet<(&'a str, u64)>,
    /// Gap notices by unit, each with the highest index of the unit that was delivered before it.
    notices: BTreeMap<&'a Unit, Vec<(&'a Notice, Option<usize>)>>,
    /// Units of which a notice said that lines may be repeated.
    may_repeat: BTreeSet<&'a Unit>,
    /// Missing lines that no notice of their stream explains, where a notice of the tail may.
    unexplained: u64,
    violations: Vec<Violation>,
}

impl<'a> Checker<'a> {
    fn fail(&mut self, rule: Rule, detail: String) {
        self.violations.push(Violation::new(rule, &self.log.name, detail));
    }

    fn read(&mut self) {
        for received in &self.log.received {
            match received {
                Received::Begin => self.begin(),
                Received::Cursor => {
                    self.newest_at_cursor.clone_from(&self.newest);
                    self.undelivered.clear();
                    self.after_cursor.clear();
                }
                Received::Line {
                    stream,
                    seq,
                    text,
                    late,
                    at,
                    fields,
                } => {
                    self.check_fields(text, fields);
                    self.line((stream, *seq), text, *late, *at);
                }
                Received::Notice(notice) => self.notice(notice),
            }
        }
        for lines in self.by_unit.values_mut() {
            lines.sort_by_key(|line| line.index);
        }
    }

    fn begin(&mut self) {
        self.in_response.clear();
        self.has_failed_history = false;
        self.newest.clone_from(&self.newest_at_cursor);
        for (stream, gap) in self.undelivered.drain(..) {
            self.undelivered_before.entry(stream).or_default().push(gap);
        }
    }

    fn check_fields(&mut self, text: &str, fields: &Fields) {
        let Some((unit, index)) = self.printed.find(text) else {
            return;
        };
        let Some(lines) = self.printed.lines(unit) else { return };
        let expected = Fields {
            time: lines.stamps[index],
            process: lines.process.clone(),
            fd: unit.output.name().map(str::to_owned),
        };
        if *fields != expected {
            let detail = format!(
                "line {index} of {} has {fields}, was printed with {expected}",
                lines.process
            );
            self.fail(Rule::WrongField, detail);
        }
    }

    fn line(&mut self, (stream, seq): (&'a str, u64), text: &str, late: bool, at: Duration) {
        let short = short_stream(stream);
        let Some((unit, index)) = self.printed.find(text) else {
            return self.fail(Rule::Invented, format!("{short} #{seq}: {text:?} was never printed"));
        };
        if self.printed.lines(unit).is_some_and(|lines| lines.app != self.log.app) {
            self.fail(Rule::OtherApp, format!("{short} #{seq}: {text:?} is of another app"));
        }
        let is_in_response = !self.in_response.insert((stream, seq));
        self.after_cursor.insert((stream, seq));
        // A client drops what it has by stream and number.
        let is_known = self.numbers.get(stream).and_then(|numbers| numbers.get(&seq)) == Some(&index);
        let was_declared = |declared: &Vec<Range<u64>>| declared.iter().any(|range| range.contains(&seq));
        if late && !is_known && !self.declared.get(stream).is_some_and(was_declared) {
            let detail = format!("{short} #{seq} is marked late, but no notice has declared it missing");
            return self.fail(Rule::WrongField, detail);
        }
        let newest = self.newest.get(stream).copied();
        if newest.is_none_or(|(newest, _)| newest < seq) {
            self.newest.insert(stream, (seq, index));
        }
        match self.numbers.entry(stream).or_default().insert(seq, index) {
            Some(known) if known == index && is_in_response => {
                let detail = format!(
                    "{short} #{seq} arrives twice in one response, again at {:.3} s",
                    at.as_secs_f64()
                );
                return self.fail(Rule::Repeat, detail);
            }
            Some(known) if known == index => return,
            Some(known) => {
                return self.fail(
                    Rule::NumberReused,
                    format!(
                        "{short} #{seq} names two lines: line {known} and, at {:.3} s, line {index}",
                        at.as_secs_f64()
                    ),
                );
            }
            None => {}
        }
        let is_read_again = self.undelivered_before.get(stream).is_some_and(was_declared);
        if (late && self.log.bus.may_be_late) || (!late && is_read_again) {
            self.late.insert((stream, seq));
        }
        if let Some((newest_seq, newest_index)) = newest
            && !late
            && (seq < newest_seq || index < newest_index)
        {
            self.fail(
                Rule::Order,
                format!(
                    "{short}: #{seq} (line {index}) follows #{newest_seq} (line {newest_index}) at {:.3} s",
                    at.as_secs_f64()
                ),
            );
        }
        let lines = self.by_unit.entry(unit).or_default();
        if let Some(before) = lines.iter().find(|line| line.index == index) {
            let has_lost_start = |stream| has_lost_start(&self.interrupted, stream);
            if self.may_repeat.contains(unit) || has_lost_start(stream) || has_lost_start(before.stream) {
                return;
            }
            let detail = format!(
                "{}: {before}, and again at {:.3} s as {short} #{seq}",
                self.printed.lines(unit).map_or("", |lines| lines.process.as_str()),
                at.as_secs_f64()
            );
            return self.fail(Rule::Repeat, detail);
        }
        lines.push(Delivered { index, stream, seq, at });
    }

    fn notice(&mut self, notice: &'a Notice) {
        let Some(stream) = &notice.stream else {
            self.has_failed_history |= matches!(notice.reason.as_str(), "history_failed" | "history_timeout");
            if notice.reason == "interrupted" && self.log.bus.may_lose {
                self.interrupted.extend(notice.from.zip(notice.to));
            }
            return;
        };
        if let (Some(first), Some(count)) = (notice.first, notice.count) {
            self.declared.entry(stream).or_default().push(first..first + count);
            let is_undelivered = notice.reason == "undelivered";
            if is_undelivered && (self.has_failed_history || self.log.bus.may_be_late) {
                self.undelivered.push((stream.as_str(), first..first + count));
            }
            if is_undelivered && self.log.bus.may_lose {
                let lines = (first..first + count).map(|seq| (stream.as_str(), seq));
                let is_unknown =
                    |line: &(&str, u64)| self.after_cursor.contains(line) && !self.in_response.contains(line);
                self.lost_later.extend(lines.filter(is_unknown));
            }
        }
        let unit = self.printed.unit_of_stream(stream);
        if let Some(unit) = unit {
            if notice.reason == "may_repeat" {
                self.may_repeat.insert(unit);
                return;
            }
            let before = self
                .by_unit
                .get(unit)
                .and_then(|lines| lines.iter().map(|line| line.index).max());
            self.notices.entry(unit).or_default().push((notice, before));
        }
    }

    fn check_units(&mut self) {
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

/// Returns whether the notices at the start of a stream may be among what a bus lost in these times:
/// they are published soon after the stream is created.
fn has_lost_start(interrupted: &[(Timestamp, Timestamp)], stream: &str) -> bool {
    let Some(epoch) = epoch(stream) else { return false };
    let created = Timestamp::from_millisecond(i64::try_from(epoch.millis).unwrap_or(i64::MAX));
    let is_within = |created: Timestamp| {
        let mut interrupted = interrupted.iter();
        interrupted.any(|(from, to)| created <= *to && created + START_PUBLISHED >= *from)
    };
    created.is_ok_and(is_within)
}

/// Returns whether a stream of a unit is older than another one.
fn is_older(stream: &str, other: &str) -> bool {
    epoch(stream)
        .zip(epoch(other))
        .is_some_and(|(epoch, other)| epoch < other)
}

fn epoch(stream: &str) -> Option<Epoch> {
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

#[cfg(test)]
mod tests;
