//! Checks what a tail received.
//!
//! For each unit, the delivered lines are put in the order in which they were printed. Between two
//! neighbours lie as many lines as were not delivered. Gap notices are assigned to the places
//! between neighbours by their sequence numbers. The numbers must agree.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    Rule, Violation,
    printed::{Printed, Unit, UnitLines},
};

/// What a tail received, in order.
#[derive(Clone, Debug)]
pub enum Received {
    /// A line.
    Line {
        /// The stream.
        stream: String,
        /// The sequence number.
        seq: u64,
        /// The text.
        text: String,
        /// Whether its gap was declared before.
        late: bool,
    },
    /// A notice.
    Notice(Notice),
}

/// A notice.
#[derive(Clone, Debug, Default)]
pub struct Notice {
    /// The code: `L13`.
    pub code: String,
    /// The reason: `rotated`.
    pub reason: String,
    /// The stream, if it is about one.
    pub stream: Option<String>,
    /// The sequence number.
    pub first: Option<u64>,
    /// The number of lines, if it is known.
    pub count: Option<u64>,
}

/// What a tail asked for and received.
#[derive(Clone, Debug, Default)]
pub struct TailLog {
    /// The name in violations.
    pub name: String,
    /// The app.
    pub app: String,
    /// Lines that were printed later must arrive.
    pub since: Duration,
    /// Whether it received everything up to the end of the simulation.
    pub is_complete: bool,
    /// Whether the bus can deliver a line after its gap was declared.
    pub may_be_late: bool,
    /// What it received.
    pub received: Vec<Received>,
}

/// A delivered line of a unit.
struct Delivered<'a> {
    index: usize,
    stream: &'a str,
    seq: u64,
}

/// The notices between two neighbours.
#[derive(Default)]
struct Declared {
    /// Lines of gaps whose size is known.
    known: u64,
    /// Gaps of unknown size.
    unknown: u64,
    /// Whether lines may be missing: nothing proves it.
    is_suspected: bool,
    /// The reasons.
    reasons: BTreeSet<String>,
}

/// Checks a tail.
pub fn check(printed: &Printed, log: &TailLog) -> Vec<Violation> {
    let mut checker = Checker {
        printed,
        log,
        numbers: BTreeMap::new(),
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
    by_unit: BTreeMap<&'a Unit, Vec<Delivered<'a>>>,
    /// Numbers that arrived after their gap was declared, which the modelled disorder allows.
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
                Received::Line {
                    stream,
                    seq,
                    text,
                    late,
                } => self.line(stream, *seq, text, *late),
                Received::Notice(notice) => self.notice(notice),
            }
        }
        for lines in self.by_unit.values_mut() {
            lines.sort_by_key(|line| line.index);
        }
    }

    fn line(&mut self, stream: &'a str, seq: u64, text: &str, late: bool) {
        let Some((unit, index)) = self.printed.find(text) else {
            return self.fail(Rule::Invented, format!("{stream} #{seq}: {text:?} was never printed"));
        };
        if self.printed.lines(unit).is_some_and(|lines| lines.app != self.log.app) {
            self.fail(Rule::OtherApp, format!("{stream} #{seq}: {text:?} is of another app"));
        }
        let numbers = self.numbers.entry(stream).or_default();
        let newest = numbers.last_key_value().map(|(seq, index)| (*seq, *index));
        match numbers.insert(seq, index) {
            // A client drops what it has by stream and number.
            Some(known) if known == index => return,
            Some(_) => {
                return self.fail(
                    Rule::NumberReused,
                    format!("{stream} #{seq} names two lines, now {text:?}"),
                );
            }
            None => {}
        }
        if late && self.log.may_be_late {
            self.late.insert((stream, seq));
        }
        if let Some((newest_seq, newest_index)) = newest
            && !late
            && (seq < newest_seq || index < newest_index)
        {
            self.fail(
                Rule::Order,
                format!("{stream}: #{seq} (line {index}) follows #{newest_seq} (line {newest_index})"),
            );
        }
        let lines = self.by_unit.entry(unit).or_default();
        if let Some(before) = lines.iter().find(|line| line.index == index) {
            if self.may_repeat.contains(unit) {
                return;
            }
            let detail = format!(
                "line {index} of {} was delivered as {} #{} and as {stream} #{seq}",
                self.printed.lines(unit).map_or("", |lines| lines.process.as_str()),
                before.stream,
                before.seq
            );
            return self.fail(Rule::Repeat, detail);
        }
        lines.push(Delivered { index, stream, seq });
    }

    fn notice(&mut self, notice: &'a Notice) {
        let Some(stream) = &notice.stream else { return };
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
        let starts = self.suspected_starts();
        for (unit, lines) in printed.units().filter(|(_, lines)| lines.app == self.log.app) {
            // No stream names an instance that was never seen: the next one reports it.
            let is_unseen = !self.by_unit.contains_key(unit) && !self.notices.contains_key(unit);
            let next_start = starts.get(lines.process.as_str());
            if is_unseen
                && lines
                    .times
                    .last()
                    .zip(next_start)
                    .is_some_and(|(last, start)| last <= start)
            {
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

    /// Returns by process when the last instance printed its first line before whose start a notice
    /// says that lines may be missing.
    fn suspected_starts(&self) -> BTreeMap<&'a str, Duration> {
        let mut starts = BTreeMap::new();
        for (unit, notices) in &self.notices {
            let is_start = |notice: &Notice| notice.first == Some(0) && notice.count.is_none();
            if let Some(lines) = self.printed.lines(unit)
                && notices.iter().any(|(notice, _)| is_start(notice))
            {
                let start = lines.times.first().copied().unwrap_or(Duration::MAX);
                let latest = starts.entry(lines.process.as_str()).or_insert(start);
                *latest = start.max(*latest);
            }
        }
        starts
    }

    fn check_unit(&mut self, unit: &'a Unit, lines: &UnitLines) {
        let delivered = self.by_unit.remove(unit).unwrap_or_default();
        let notices = self.notices.remove(unit).unwrap_or_default();
        let first_due = lines.times.partition_point(|at| *at <= self.log.since);
        let start = delivered.first().map_or(first_due, |line| line.index.min(first_due));
        let end = if self.log.is_complete {
            lines.times.len()
        } else {
            delivered.last().map_or(start, |line| line.index + 1)
        };
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
                self.check_place(lines, (from, to), missing, declared);
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
                    let arrived = || before.map(|index| delivered.partition_point(|line| line.index <= index));
                    last.map(|last| last + 1).or_else(arrived).unwrap_or(0)
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
                    declared.reasons.insert(notice.reason.clone());
                }
                Some(count) => {
                    let is_delivered = |seq: u64| numbers.is_some_and(|numbers| numbers.contains_key(&seq));
                    let is_false = |seq: u64| is_delivered(seq) && !self.late.contains(&(stream.as_str(), seq));
                    let found = (first..first + count).filter(|seq| is_false(*seq)).count();
                    if found > 0 {
                        false_gaps.push(format!(
                            "gap ({}) of {count} lines at {stream} #{first} includes {found} lines that were delivered",
                            notice.reason
                        ));
                    }
                    for seq in (first..first + count).filter(|seq| !is_delivered(*seq)) {
                        let declared = places.entry(place_of(seq)).or_default();
                        declared.known += 1;
                        declared.reasons.insert(notice.reason.clone());
                    }
                }
            }
        }
        for detail in false_gaps {
            self.fail(Rule::FalseGap, detail);
        }
        places
    }

    fn check_place(
        &mut self,
        lines: &UnitLines,
        (from, to): (usize, usize),
        missing: u64,
        declared: Option<&Declared>,
    ) {
        let process = &lines.process;
        let place = format!("{process}, lines {from} to {to}");
        let Some(declared) = declared else {
            if missing > 0 && self.has_notice_of_tail() {
                self.unexplained += missing;
            } else if missing > 0 {
                self.fail(
                    Rule::SilentLoss,
                    format!("{missing} of {place} are missing without a notice"),
                );
            }
            return;
        };
        let reasons: Vec<_> = declared.reasons.iter().map(String::as_str).collect();
        let reasons = reasons.join(", ");
        let known = declared.known;
        if declared.unknown == 0 && known != missing && (missing < known || !declared.is_suspected) {
            let rule = if missing == 0 { Rule::FalseGap } else { Rule::WrongCount };
            self.fail(
                rule,
                format!("{place}: {missing} are missing, gaps ({reasons}) declare {known}"),
            );
        } else if declared.unknown > 0 && missing < known {
            self.fail(
                Rule::WrongCount,
                format!("{place}: {missing} are missing, gaps ({reasons}) declare at least {known}"),
            );
        } else if declared.unknown > 0 && missing == known {
            self.fail(
                Rule::FalseGap,
                format!("{place}: {missing} are missing, gaps ({reasons}) declare {known} and an unknown number"),
            );
        }
    }

    fn has_notice_of_tail(&self) -> bool {
        self.log.received.iter().any(|received| match received {
            Received::Notice(notice) => notice.stream.is_none() && covers_lines(notice),
            Received::Line { .. } => false,
        })
    }
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
mod tests {
    use super::*;
    use crate::check::printed::Output;

    const STREAM: &str = "uid/web/c1/1-a";

    /// Five lines of one container.
    fn printed() -> Printed {
        let mut printed = Printed::default();
        let unit = Unit {
            instance: "c1".to_owned(),
            output: Output::Both,
        };
        for index in 0..5 {
            printed.add(
                &unit,
                "shop",
                "web",
                format!("line {index}"),
                Duration::from_secs(index + 1),
            );
        }
        printed
    }

    fn line(stream: &str, seq: u64, index: usize) -> Received {
        Received::Line {
            stream: stream.to_owned(),
            seq,
            text: format!("line {index}"),
            late: false,
        }
    }

    fn gap(stream: &str, first: u64, count: Option<u64>) -> Received {
        Received::Notice(Notice {
            code: "L13".to_owned(),
            reason: "rotated".to_owned(),
            stream: Some(stream.to_owned()),
            first: Some(first),
            count,
        })
    }

    fn rules(received: Vec<Received>) -> Vec<Rule> {
        let log = TailLog {
            name: "tail".to_owned(),
            app: "shop".to_owned(),
            since: Duration::ZERO,
            is_complete: true,
            may_be_late: false,
            received,
        };
        check(&printed(), &log)
            .into_iter()
            .map(|violation| violation.rule)
            .collect()
    }

    fn lines(indexes: impl IntoIterator<Item = usize>) -> Vec<Received> {
        indexes
            .into_iter()
            .map(|index| line(STREAM, index as u64, index))
            .collect()
    }

    #[test]
    fn complete_output_breaks_no_promise() {
        assert_eq!(rules(lines(0..5)), []);
        let other = "uid/web/c1/2-b";
        let mut two = lines(0..3);
        two.extend([line(other, 0, 3), line(other, 1, 4)]);
        assert_eq!(rules(two), []);
    }

    #[test]
    fn a_missing_line_needs_a_notice_with_its_count() {
        assert_eq!(rules(lines([0, 1, 4])), [Rule::SilentLoss]);
        assert_eq!(rules(lines([0, 1, 2, 3])), [Rule::SilentLoss]);
        assert_eq!(rules(lines([1, 2, 3, 4])), [Rule::SilentLoss]);
        let with = |notice| {
            let mut received = lines([0, 1]);
            received.extend([notice, line(STREAM, 4, 4)]);
            rules(received)
        };
        assert_eq!(with(gap(STREAM, 2, Some(2))), []);
        assert_eq!(with(gap(STREAM, 2, Some(1))), [Rule::WrongCount]);
        assert_eq!(with(gap(STREAM, 4, None)), []);
    }

    #[test]
    fn a_gap_over_delivered_lines_is_false() {
        let mut received = lines(0..5);
        received.insert(2, gap(STREAM, 2, Some(1)));
        assert_eq!(rules(received), [Rule::FalseGap]);
        let mut received = lines(0..5);
        received.insert(2, gap(STREAM, 2, None));
        assert_eq!(rules(received), [Rule::FalseGap]);
        let other = "uid/web/c1/2-b";
        let mut received = lines(0..3);
        received.extend([gap(other, 0, None), line(other, 0, 3), line(other, 1, 4)]);
        assert_eq!(rules(received), [Rule::FalseGap]);
    }

    #[test]
    fn a_suspected_gap_covers_missing_lines_and_may_cover_none() {
        for indexes in [vec![0, 1, 4], vec![0, 1, 2, 3, 4]] {
            let mut received = lines(indexes);
            let Received::Notice(gap) = gap(STREAM, 2, None) else {
                return;
            };
            let reason = "suspected".to_owned();
            received.insert(2, Received::Notice(Notice { reason, ..gap }));
            assert_eq!(rules(received), []);
        }
    }

    #[test]
    fn a_line_arrives_once_under_one_number_and_in_order() {
        let mut again = lines(0..5);
        again.push(line("uid/web/c1/2-b", 0, 4));
        assert_eq!(rules(again), [Rule::Repeat]);
        let mut reused = lines(0..4);
        reused.push(line(STREAM, 3, 4));
        assert!(rules(reused).contains(&Rule::NumberReused));
        assert_eq!(rules(lines([0, 2, 1, 3, 4])), [Rule::Order]);
    }
}
