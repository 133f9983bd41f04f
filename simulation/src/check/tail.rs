//! Checks what a tail received.
//!
//! For each unit, the delivered lines are put in the order in which they were printed. Between two
//! neighbours lie as many lines as were not delivered. Gap notices are assigned to the places
//! between neighbours by their sequence numbers. The numbers must agree.

mod units;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    ops::Range,
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};

use super::{
    Rule, Violation,
    printed::{Printed, Unit},
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
}

/// Returns whether the notices at the start of a stream may be among what a bus lost in these times:
/// they are published soon after the stream is created.
fn has_lost_start(interrupted: &[(Timestamp, Timestamp)], stream: &str) -> bool {
    let Some(epoch) = units::epoch(stream) else {
        return false;
    };
    let created = Timestamp::from_millisecond(i64::try_from(epoch.millis).unwrap_or(i64::MAX));
    let is_within = |created: Timestamp| {
        let mut interrupted = interrupted.iter();
        interrupted.any(|(from, to)| created <= *to && created + START_PUBLISHED >= *from)
    };
    created.is_ok_and(is_within)
}

#[cfg(test)]
mod tests;
