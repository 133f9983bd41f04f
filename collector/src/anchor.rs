//! Where in a container's log we are, in terms that a later reading of the same log can be held against.

use bus::Timestamp;
use serde::{Deserialize, Serialize};

/// A line by which a place in a log is found again: its timestamp, its ordinal among neighbours with the same timestamp, and its hash.
///
/// The log API has no positions, and a timestamp is no unique key: a burst can give equal ones, and their texts may be identical too. What it cannot tell: a
/// file that was rotated right between neighbours equal in time (to the nanosecond) and text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anchor {
    /// The line's timestamp, nanoseconds since 1970. A line without one counts with the line before it.
    pub time: i64,
    /// The highest timestamp up to this line. Above `time` only where the node's clock stepped back; a line later than this proves that the anchor does not follow.
    pub high: i64,
    /// Which one of the neighbouring lines with this timestamp it is, from 1.
    pub ordinal: u64,
    /// Of the whole line, timestamp and newline included.
    pub hash: u64,
}

/// An anchor and its line's place in the numbering.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResumePoint {
    /// The seq after the anchor's line.
    pub seq_end: u64,
    /// The line.
    pub anchor: Anchor,
}

impl Anchor {
    /// The timestamp.
    pub fn timestamp(&self) -> Timestamp {
        Timestamp(self.time)
    }
}

/// What of an anchor accumulates from line to line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnchorState {
    pub time: i64,
    pub high: i64,
    pub ordinal: u64,
}

impl AnchorState {
    /// Before the first line.
    pub const START: Self = Self {
        time: i64::MIN,
        high: i64::MIN,
        ordinal: 0,
    };

    /// After one more line; `None`: it has no timestamp of its own.
    #[inline]
    pub fn advance(&mut self, time: Option<Timestamp>) {
        match time {
            Some(Timestamp(time)) if time != self.time => {
                self.time = time;
                self.high = self.high.max(time);
                self.ordinal = 1;
            }
            _ => self.ordinal += 1,
        }
    }

    /// The anchor that the line just stepped over makes.
    pub fn anchor(&self, line: &[u8]) -> Anchor {
        Anchor {
            time: self.time,
            high: self.high,
            ordinal: self.ordinal,
            hash: fingerprint(line),
        }
    }

    /// Whether the line just stepped over is this anchor's.
    pub fn matches(&self, anchor: &Anchor, line: &[u8]) -> bool {
        self.ordinal == anchor.ordinal && self.matches_line(anchor, line)
    }

    /// Whether the line just stepped over can be this anchor's, wherever its neighbours were counted from.
    pub fn matches_line(&self, anchor: &Anchor, line: &[u8]) -> bool {
        self.time == anchor.time && fingerprint(line) == anchor.hash
    }
}

/// Reads the timestamps of consecutive lines: those of the same second cost nine digits.
#[derive(Debug, Default)]
pub struct TimestampParser {
    /// `2026-11-23T07:00:00.`
    second: [u8; SECOND_LEN],
    base: i64,
}

const SECOND_LEN: usize = 20;

/// Bytes of the form the API nearly always sends, with the space behind it.
const PREFIX_LEN: usize = 31;

impl TimestampParser {
    /// The line's timestamp and the bytes it takes, the space behind it included. `None`: the line begins with none.
    #[inline]
    pub fn parse(&mut self, line: &[u8]) -> Option<(Timestamp, usize)> {
        if let Some(prefix) = line.first_chunk::<PREFIX_LEN>()
            && prefix[..SECOND_LEN] == self.second
            && prefix[29..] == *b"Z "
        {
            let mut is_valid = true;
            let nanos = prefix[SECOND_LEN..29].iter().fold(0i64, |n, c| {
                let digit = c.wrapping_sub(b'0');
                is_valid &= digit < 10;
                n * 10 + i64::from(digit)
            });
            if is_valid {
                return Some((Timestamp(self.base + nanos), PREFIX_LEN));
            }
        }
        self.parse_slowly(line)
    }

    #[cold]
    fn parse_slowly(&mut self, line: &[u8]) -> Option<(Timestamp, usize)> {
        let (time, text) = Timestamp::split_line(line)?;
        let len = line.len() - text.len();
        if len == PREFIX_LEN && line[19] == b'.' && line[29] == b'Z' {
            self.second.copy_from_slice(&line[..SECOND_LEN]);
            self.base = time.floor_second().0;
        }
        Some((time, len))
    }
}

/// FNV-1a: the same on every machine and in every version, as what a checkpoint keeps must be. A collision would need the same timestamp and ordinal too.
pub fn fingerprint(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_of_one_second_and_of_others_read_as_the_bus_reads_them() {
        let mut stamps = TimestampParser::default();
        for line in [
            "2026-11-23T08:45:32.623110358Z a",
            "2026-11-23T08:45:32.999999999Z ",
            "2026-11-23T08:45:32.99999999xZ b",
            "2026-11-23T08:45:33.000000000Z c",
            "2026-11-23T17:45:33.000000001+09:00 tokyo",
            "2026-11-23T08:45:33.1Z trimmed",
            "no time at all, yet long enough to hold one",
            "",
        ] {
            let expected = Timestamp::split_line(line.as_bytes()).map(|(time, rest)| (time, line.len() - rest.len()));
            assert_eq!(stamps.parse(line.as_bytes()), expected, "{line}");
        }
    }

    #[test]
    fn the_fingerprint_never_changes() {
        assert_eq!(fingerprint(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fingerprint(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn a_clock_that_steps_back_leaves_the_high_mark() {
        let mut progress = AnchorState::START;
        for time in [100, 100, 90] {
            progress.advance(Some(Timestamp(time)));
        }
        progress.advance(None);
        assert_eq!((progress.time, progress.high, progress.ordinal), (90, 100, 2));
    }
}
