//! Checks what the receiver of a drain got: every line at least once, first deliveries in order, or
//! a gap notice with the process and the count.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::Timestamp;

use super::{
    BusLimits, Rule, Violation,
    printed::{Output, Printed, Unit, UnitLines},
};

/// A syslog message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// HOSTNAME: the app.
    pub app: String,
    /// APP-NAME, or PROCID if that is longer: the process.
    pub process: String,
    /// MSG.
    pub text: String,
    /// PRI.
    pub pri: u8,
    /// TIMESTAMP.
    pub time: Timestamp,
}

/// What a receiver got.
#[derive(Clone, Debug, Default)]
pub struct DrainLog {
    /// The name in violations.
    pub name: String,
    /// The app.
    pub app: String,
    /// Lines that were printed later must arrive.
    pub since: Duration,
    /// Whether it received everything up to the end of the simulation.
    pub is_complete: bool,
    /// What the bus may do to lines.
    pub bus: BusLimits,
    /// Lines that were printed earlier can be lost silently behind a proxy.
    pub lost_until: Duration,
    /// What it got, in order; what a receiver lost of what its kernel had taken, is not in it.
    pub messages: Vec<Message>,
    /// What receivers lost that was confirmed because their kernel had kept it unread for long.
    pub confirmed_unread: Vec<Message>,
}

/// What gap notices declare of one process.
#[derive(Default)]
struct Declared {
    known: u64,
    unknown: u64,
    /// Whether lines may be missing: nothing proves it.
    is_suspected: bool,
    /// Lines that the bus did not deliver.
    undelivered: u64,
}

/// Checks a drain.
pub fn check(printed: &Printed, log: &DrainLog) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut fail = |rule, detail: String| violations.push(Violation::new(rule, &log.name, detail));
    let mut arrived: BTreeMap<&Unit, Vec<usize>> = BTreeMap::new();
    let mut declared: BTreeMap<&str, Declared> = BTreeMap::new();
    let mut is_covered = false;
    // What was not confirmed is sent again, notices too.
    let mut notices = BTreeSet::new();
    for message in &log.messages {
        if message.process == "tributary" {
            if !notices.insert(&message.text) {
                continue;
            }
            match parse_gap(&message.text) {
                Some((process, size)) => {
                    let declared = declared.entry(process).or_default();
                    match size {
                        GapSize::Lines(lines) if message.text.ends_with("not delivered by the bus") => {
                            declared.known += lines;
                            declared.undelivered += lines;
                        }
                        GapSize::Lines(lines) => declared.known += lines,
                        GapSize::Unknown => declared.unknown += 1,
                        GapSize::Suspected => declared.is_suspected = true,
                    }
                }
                None => is_covered |= message.text.starts_with("Error L10"),
            }
            continue;
        }
        let Some((unit, index)) = printed.find(&message.text) else {
            fail(Rule::Invented, format!("{:?} was never printed", message.text));
            continue;
        };
        if message.app != log.app || printed.lines(unit).is_some_and(|lines| lines.app != log.app) {
            fail(Rule::OtherApp, format!("{:?} is of another app", message.text));
        }
        if let Some(lines) = printed.lines(unit)
            && let Some(wrong) = wrong_field(message, unit, &lines.process, lines.stamps[index])
        {
            fail(Rule::WrongField, format!("line {index} of {}: {wrong}", lines.process));
        }
        let indexes = arrived.entry(unit).or_default();
        match indexes.last() {
            Some(last) if index > *last => indexes.push(index),
            None => indexes.push(index),
            // Sent again.
            Some(_) if indexes.binary_search(&index).is_ok() => {}
            // A new stream can repeat lines from before the drain began.
            Some(_) if printed.lines(unit).is_some_and(|lines| lines.times[index] <= log.since) => {}
            Some(_) if log.bus.may_be_late && has_gap(&declared, printed, unit) => {
                let place = indexes.partition_point(|other| *other < index);
                indexes.insert(place, index);
            }
            Some(last) => fail(
                Rule::Order,
                format!(
                    "{:?} (line {index}) arrives first behind line {last}",
                    message.text.trim_end_matches('x')
                ),
            ),
        }
    }
    let mut unread: BTreeMap<&Unit, BTreeSet<usize>> = BTreeMap::new();
    for (unit, index) in log
        .confirmed_unread
        .iter()
        .filter_map(|message| printed.find(&message.text))
    {
        unread.entry(unit).or_default().insert(index);
    }
    let mut missing: BTreeMap<&str, u64> = BTreeMap::new();
    // Also of those that were printed before the drain began, or lost by the receiver.
    let mut absent: BTreeMap<&str, u64> = BTreeMap::new();
    let is_due = |lines: &UnitLines| lines.app == log.app && !printed.is_unheard(&lines.process);
    for (unit, lines) in printed.units().filter(|(_, lines)| is_due(lines)) {
        let indexes = arrived.get(unit).map(Vec::as_slice).unwrap_or_default();
        let first_due = lines.times.partition_point(|at| *at <= log.since);
        let start = indexes.first().map_or(first_due, |first| first_due.min(*first));
        let arrived_end = indexes.last().map(|last| last + 1);
        let end = if log.is_complete {
            printed.collectable(lines).max(arrived_end.unwrap_or_default())
        } else {
            arrived_end.unwrap_or(start)
        };
        let lost = lines.times.partition_point(|at| *at < log.lost_until);
        let start = start.max(lost.min(end));
        let arrived = indexes.len() - indexes.partition_point(|index| *index < start);
        let unread = unread.remove(unit).unwrap_or_default();
        let unread = unread.range(start..end.max(start));
        let unread = unread.filter(|index| indexes.binary_search(index).is_err()).count();
        let count = end.saturating_sub(start).saturating_sub(arrived + unread);
        *missing.entry(lines.process.as_str()).or_default() += count as u64;
        *absent.entry(lines.process.as_str()).or_default() += (lines.times.len() - indexes.len()) as u64;
    }
    for (process, missing) in missing {
        let declared = declared.remove(process).unwrap_or_default();
        let (known, unknown) = (declared.known, declared.unknown);
        if missing > known && unknown == 0 && !declared.is_suspected && !is_covered {
            let rule = if known == 0 { Rule::SilentLoss } else { Rule::WrongCount };
            fail(
                rule,
                format!("{missing} lines of {process} are missing, notices declare {known}"),
            );
        }
        // What is resent is declared again.
        let explained = known - declared.undelivered;
        if declared.undelivered > 0
            && missing > explained
            && unknown == 0
            && !declared.is_suspected
            && !log.bus.may_lose
        {
            fail(
                Rule::Undelivered,
                format!("{missing} lines of {process} are missing, of which the bus has lost none"),
            );
        }
        let absent = absent.get(process).copied().unwrap_or_default();
        if !log.bus.may_be_late && (known > absent || unknown > 0 && known == absent) {
            fail(
                Rule::FalseGap,
                format!(
                    "{absent} lines of {process} did not arrive, notices declare {known} and {unknown} gaps of unknown size"
                ),
            );
        }
    }
    violations
}

/// Returns what is wrong with the header of a message.
fn wrong_field(message: &Message, unit: &Unit, process: &str, stamp: Timestamp) -> Option<String> {
    let pri = if unit.output == Output::Err { 11 } else { 14 };
    let micros = stamp.as_microsecond();
    if message.pri != pri {
        return Some(format!("PRI is {}, not {pri}", message.pri));
    }
    if message.process != process {
        return Some(format!("APP-NAME is {}", message.process));
    }
    (message.time.as_microsecond() != micros).then(|| format!("TIMESTAMP is {}, not {stamp}", message.time))
}

/// Returns whether a gap of the process was declared.
fn has_gap(declared: &BTreeMap<&str, Declared>, printed: &Printed, unit: &Unit) -> bool {
    let lines = printed.lines(unit);
    lines.is_some_and(|lines| declared.contains_key(lines.process.as_str()))
}

/// Returns the process in the text of a gap notice.
pub fn process_of_gap(text: &str) -> Option<&str> {
    parse_gap(text).map(|(process, _)| process)
}

/// How many lines a gap notice declares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum GapSize {
    Lines(u64),
    Unknown,
    /// Maybe none.
    Suspected,
}

/// Parses the text of a gap notice: the process, and the size of the gap.
fn parse_gap(text: &str) -> Option<(&str, GapSize)> {
    let rest = text
        .strip_prefix("Error L12: ")
        .or_else(|| text.strip_prefix("Error L13: "))?;
    if let Some(rest) = rest.strip_prefix("lines of ") {
        let (process, rest) = rest.split_once(' ')?;
        return rest
            .starts_with("may be missing")
            .then_some((process, GapSize::Suspected));
    }
    let (size, rest) = match rest.strip_prefix("an unknown number of lines of ") {
        Some(rest) => (GapSize::Unknown, rest),
        None => {
            let (count, rest) = rest.split_once(' ')?;
            let rest = rest
                .strip_prefix("lines of ")
                .or_else(|| rest.strip_prefix("line of "))?;
            (GapSize::Lines(count.parse().ok()?), rest)
        }
    };
    Some((rest.split_once(' ')?.0, size))
}

/// Splits octet-counted syslog messages off a buffer.
///
/// # Errors
/// What is wrong with the framing.
pub fn split_messages(buffer: &mut Vec<u8>) -> Result<Vec<Message>, String> {
    let mut messages = Vec::new();
    let mut used = 0;
    while let Some(space) = buffer[used..].iter().take(12).position(|byte| *byte == b' ') {
        let digits = std::str::from_utf8(&buffer[used..used + space]).unwrap_or("");
        let len: usize = digits
            .parse()
            .map_err(|_| format!("{digits:?} is not the length of a message"))?;
        let start = used + space + 1;
        let Some(message) = buffer.get(start..start + len) else {
            break;
        };
        messages.push(parse_message(message)?);
        used = start + len;
    }
    buffer.drain(..used);
    Ok(messages)
}

/// Parses an RFC 5424 message.
fn parse_message(message: &[u8]) -> Result<Message, String> {
    let text = String::from_utf8_lossy(message);
    let mut fields = text.splitn(8, ' ');
    let mut field = || {
        fields
            .next()
            .ok_or_else(|| format!("a message with too few fields: {text:?}"))
    };
    let (pri, time, app, name, proc_id) = (field()?, field()?, field()?, field()?, field()?);
    let (_msgid, _data) = (field()?, field()?);
    let process = if proc_id == "-" { name } else { proc_id };
    let pri = pri.strip_prefix('<').and_then(|rest| rest.strip_suffix(">1"));
    let pri = pri.and_then(|pri| pri.parse().ok());
    Ok(Message {
        pri: pri.ok_or_else(|| format!("a message without PRI: {text:?}"))?,
        time: time
            .parse()
            .map_err(|_| format!("a message without TIMESTAMP: {text:?}"))?,
        app: app.to_owned(),
        process: process.to_owned(),
        text: field().unwrap_or_default().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_split_and_parsed() {
        let message = "<14>1 2026-11-23T07:00:00.123456Z shop web-1 - - - a  b";
        let mut buffer = format!("{} {message}{} {}", message.len(), message.len(), &message[..9]).into_bytes();
        let messages = split_messages(&mut buffer).unwrap();
        let expected = Message {
            app: "shop".to_owned(),
            process: "web-1".to_owned(),
            text: "a  b".to_owned(),
            pri: 14,
            time: "2026-11-23T07:00:00.123456Z".parse().unwrap(),
        };
        assert_eq!(messages, [expected]);
        assert_eq!(buffer, format!("{} {}", message.len(), &message[..9]).into_bytes());
    }

    #[test]
    fn a_gap_notice_names_process_and_count() {
        assert_eq!(
            parse_gap("Error L13: 7 lines of web-1 lost (seq 13 to 19): not delivered by the bus"),
            Some(("web-1", GapSize::Lines(7)))
        );
        assert_eq!(
            parse_gap("Error L13: an unknown number of lines of web-1 lost before seq 13"),
            Some(("web-1", GapSize::Unknown))
        );
        assert_eq!(
            parse_gap("Error L13: lines of web-1 may be missing before seq 13: x"),
            Some(("web-1", GapSize::Suspected))
        );
        assert_eq!(
            parse_gap("Error L13: lines of web-1 may be repeated from seq 13: x"),
            None
        );
        assert_eq!(parse_gap("Error L14 (certificate validation): error=\"x\""), None);
    }
}
