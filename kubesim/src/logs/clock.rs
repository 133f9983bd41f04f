//! The timestamps of log lines: nanoseconds of the wall clock, never decreasing, always 30 bytes long.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::{BufMut, BytesMut};
use jiff::Timestamp;

/// Bytes of a timestamp with the space that follows it: `2026-11-23T08:06:08.519378747Z `.
pub(crate) const PREFIX_BYTES: usize = 31;

/// A clock that never goes back, and that remembers the text of the current second.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    last: u64,
    second: u64,
    text: String,
}

impl Clock {
    /// Reads the wall clock. Nanoseconds since 1970; at least what the call before returned.
    pub(crate) fn read(&mut self) -> u64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.at(u64::try_from(now.as_nanos()).unwrap_or(u64::MAX))
    }

    /// Takes a time from elsewhere. Returns it, or what the call before returned if that is later.
    pub(crate) fn at(&mut self, nanos: u64) -> u64 {
        self.last = self.last.max(nanos);
        self.last
    }

    /// Appends `nanos` as a line's prefix.
    pub(crate) fn stamp(&mut self, nanos: u64, out: &mut BytesMut) {
        let second = nanos / NANOS;
        if second != self.second || self.text.is_empty() {
            self.second = second;
            self.text = format_second(second);
        }
        out.put_slice(self.text.as_bytes());
        let mut digits = *b".000000000Z ";
        let mut rest = nanos % NANOS;
        for digit in digits[1..10].iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        out.put_slice(&digits);
    }
}

/// Formats the beginning of a prefix: `2026-11-23T08:06:08`.
pub(crate) fn format_second(second: u64) -> String {
    let time = i64::try_from(second)
        .ok()
        .and_then(|second| Timestamp::from_second(second).ok());
    time.unwrap_or(Timestamp::UNIX_EPOCH)
        .strftime("%Y-%m-%dT%H:%M:%S")
        .to_string()
}

/// Turns nanoseconds since 1970 into a time.
pub(crate) fn timestamp(nanos: u64) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(nanos)).unwrap_or(Timestamp::UNIX_EPOCH)
}

const NANOS: u64 = 1_000_000_000;
