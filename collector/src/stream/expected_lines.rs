//! Lines that a rotation probe read from the current file and that must therefore still arrive.

use std::collections::VecDeque;

use bus::Timestamp;
use bytes::Bytes;

use super::lines::Slice;
use crate::anchor::TimestampParser;

/// Upper bound for pending lines; older ones stand for all files of a follow that lags by more.
const MAX_EXPECTED: usize = 64;

/// A line seen near the start of a log file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpectedLine {
    /// The line's time.
    pub time: Timestamp,
    /// The printed timestamp, with the space after it.
    prefix: Bytes,
}

/// Lines that must arrive, oldest first.
#[derive(Debug, Default)]
pub struct ExpectedLines(VecDeque<ExpectedLine>);

impl ExpectedLines {
    /// Adds a line, unless it is older than the last one.
    pub fn push(&mut self, expected: ExpectedLine) {
        if self.0.len() < MAX_EXPECTED && self.0.back().is_none_or(|last| last.time < expected.time) {
            self.0.push_back(expected);
        }
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Removes all lines.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Returns the offset of the first line after an expected one that did not arrive, or `None` if
    /// none is missing. Slices must be passed in order.
    pub fn first_after_missing(&mut self, slice: &Slice) -> Option<usize> {
        while let Some(expected) = self.0.front()
            && slice.end.time >= expected.time.0
        {
            let expected = self.0.pop_front()?;
            if expected.is_in(&slice.data) {
                continue;
            }
            if let Some((at, time)) = first_later_than(&slice.data, expected.time) {
                // Adjacent skipped files are one gap.
                self.0.retain(|other| other.time > time || other.is_in(&slice.data));
                return Some(at);
            }
        }
        None
    }
}

impl ExpectedLine {
    /// Parses the timestamp of a line. Returns `None` if it has none.
    pub fn parse(line: &Bytes) -> Option<Self> {
        let (time, text) = Timestamp::split_line(line)?;
        let prefix = line.slice(..line.len() - text.len());
        Some(Self { time, prefix })
    }

    fn is_in(&self, data: &[u8]) -> bool {
        let found = memchr::memmem::find_iter(data, &self.prefix);
        found.into_iter().any(|at| at == 0 || data[at - 1] == b'\n')
    }
}

/// Finds the first line with a later time.
fn first_later_than(data: &[u8], time: Timestamp) -> Option<(usize, Timestamp)> {
    let mut stamps = TimestampParser::default();
    let mut start = 0;
    for newline in memchr::memchr_iter(b'\n', data) {
        if let Some((own, _)) = stamps.parse(&data[start..newline])
            && own > time
        {
            return Some((start, own));
        }
        start = newline + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::lines::Lines;

    fn line(n: u32) -> String {
        format!("2026-11-23T07:00:{n:02}.000000000Z line {n}\n")
    }

    fn slice(lines: &[u32]) -> Slice {
        let mut parse = Lines::default();
        let text: String = lines.iter().map(|n| line(*n)).collect();
        parse.push(text.as_bytes());
        parse.next_slice().unwrap()
    }

    fn expected(n: u32) -> ExpectedLine {
        ExpectedLine::parse(&Bytes::from(line(n))).unwrap()
    }

    #[test]
    fn only_an_expected_line_that_was_passed_is_a_gap() {
        let mut expected_lines = ExpectedLines::default();
        expected_lines.push(expected(5));
        assert_eq!(
            expected_lines.first_after_missing(&slice(&[1, 2, 3])),
            None,
            "not yet passed"
        );
        assert_eq!(
            expected_lines.first_after_missing(&slice(&[4, 5, 6])),
            None,
            "it arrived"
        );
        assert_eq!(
            expected_lines.first_after_missing(&slice(&[7, 9])),
            None,
            "no other line was expected"
        );
        expected_lines.push(expected(12));
        expected_lines.push(expected(15));
        let at = line(10).len() + line(11).len();
        assert_eq!(
            expected_lines.first_after_missing(&slice(&[10, 11, 20, 21])),
            Some(at),
            "two files, one gap"
        );
        assert_eq!(expected_lines.first_after_missing(&slice(&[22])), None);
    }
}
