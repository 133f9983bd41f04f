//! Timestamps of log lines: nanoseconds of the wall clock, never decreasing, always 30 bytes long.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::{BufMut, BytesMut};
use jiff::Timestamp;

/// Length of a timestamp and the space after it: `2026-11-23T08:06:08.519378747Z `.
pub(crate) const PREFIX_BYTES: usize = 31;

/// A clock that never goes back and caches the text of the current second.
#[derive(Debug, Default)]
pub(crate) struct LogClock {
    last: u64,
    second: u64,
    text: String,
}

impl LogClock {
    /// Returns the wall clock in nanoseconds since the Unix epoch, at least the value returned
    /// before.
    pub(crate) fn read(&mut self) -> u64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.advance_to(u64::try_from(now.as_nanos()).unwrap_or(u64::MAX))
    }

    /// Advances the clock to `nanos` and returns it, or the value returned before if that is later.
    pub(crate) fn advance_to(&mut self, nanos: u64) -> u64 {
        self.last = self.last.max(nanos);
        self.last
    }

    /// Appends `nanos` as the timestamp prefix of a line.
    pub(crate) fn write_prefix(&mut self, nanos: u64, out: &mut BytesMut) {
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

/// Formats the first 19 bytes of a prefix: `2026-11-23T08:06:08`.
pub(crate) fn format_second(second: u64) -> String {
    let time = i64::try_from(second)
        .ok()
        .and_then(|second| Timestamp::from_second(second).ok());
    time.unwrap_or(Timestamp::UNIX_EPOCH)
        .strftime("%Y-%m-%dT%H:%M:%S")
        .to_string()
}

/// Converts nanoseconds since the Unix epoch to a timestamp.
pub(crate) fn timestamp(nanos: u64) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(nanos)).unwrap_or(Timestamp::UNIX_EPOCH)
}

const NANOS: u64 = 1_000_000_000;
