//! Anchors: identify a line of a container's log so that it can be found when the log is read
//! again.

use bus::Timestamp;
use serde::{Deserialize, Serialize};

/// Identifies a line by its timestamp, its ordinal among adjacent lines with the same timestamp,
/// and its hash.
///
/// The log API has no offsets, and timestamps are not unique: a burst can produce equal ones, even
/// with equal texts. Limit: a file rotated exactly between adjacent lines with equal time (in
/// nanoseconds) and text is not detected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anchor {
    /// The line's timestamp in nanoseconds since 1970. A line without one counts with the line
    /// before it.
    pub time: i64,
    /// The highest timestamp up to this line. Greater than `time` only if the node's clock stepped
    /// back; a later line proves that the anchor does not follow.
    pub high: i64,
    /// The position among adjacent lines with this timestamp, from 1.
    pub ordinal: u64,
    /// The hash of the whole line with its timestamp and newline.
    pub hash: u64,
}

/// An anchor and the sequence number after its line: where reading resumes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResumePoint {
    /// The sequence number after the anchor's line.
    pub seq_end: u64,
    /// The line.
    pub anchor: Anchor,
}

impl Anchor {
    /// Returns the timestamp.
    pub fn timestamp(&self) -> Timestamp {
        Timestamp(self.time)
    }
}

/// The part of an anchor that accumulates over lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnchorState {
    pub time: i64,
    pub high: i64,
    pub ordinal: u64,
}

impl AnchorState {
    /// The state before the first line.
    pub const START: Self = Self {
        time: i64::MIN,
        high: i64::MIN,
        ordinal: 0,
    };

    /// Advances by one line; `None`: it has no timestamp.
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

    /// Returns the anchor of the last line.
    pub fn anchor(&self, line: &[u8]) -> Anchor {
        Anchor {
            time: self.time,
            high: self.high,
            ordinal: self.ordinal,
            hash: fingerprint(line),
        }
    }

    /// Returns whether the last line is the anchor's.
    pub fn matches(&self, anchor: &Anchor, line: &[u8]) -> bool {
        self.ordinal == anchor.ordinal && self.matches_line(anchor, line)
    }

    /// Returns whether the last line can be the anchor's, whatever its ordinal.
    pub fn matches_line(&self, anchor: &Anchor, line: &[u8]) -> bool {
        self.time == anchor.time && fingerprint(line) == anchor.hash
    }
}

/// Parses the timestamps of consecutive lines; within the same second only nine digits are parsed.
#[derive(Debug, Default)]
pub struct TimestampParser {
    /// `2026-11-23T07:00:00.`
    second: [u8; SECOND_LEN],
    base: i64,
}

const SECOND_LEN: usize = 20;

/// Length of the timestamp that the API nearly always prints, with the space after it.
const PREFIX_LEN: usize = 31;

impl TimestampParser {
    /// Returns the line's timestamp and its length with the space, or `None` if the line starts
    /// with none.
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

/// FNV-1a. Checkpoints, file checkpoints and spool directories store the value, so it must not
/// change. A collision has an effect only with equal timestamp and ordinal.
pub fn fingerprint(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_parsed_as_the_bus_parses_them() {
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
    fn a_clock_that_steps_back_keeps_the_highest_timestamp() {
        let mut progress = AnchorState::START;
        for time in [100, 100, 90] {
            progress.advance(Some(Timestamp(time)));
        }
        progress.advance(None);
        assert_eq!((progress.time, progress.high, progress.ordinal), (90, 100, 2));
    }
}
