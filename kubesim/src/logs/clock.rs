//! Timestamps of log lines: nanoseconds of the node's clock, always 30 bytes long.

use bytes::{BufMut, BytesMut};
use jiff::Timestamp;

use crate::time::NodeClock;

/// Length of a timestamp and the space after it: `2026-11-23T08:06:08.519378747Z `.
pub(crate) const PREFIX_BYTES: usize = 31;

/// Stamps the lines of one container instance and caches the text of the current second.
///
/// Timestamps decrease only if the node's clock steps back, or between standard output and standard
/// error while lines are written late.
pub(crate) struct LogClock {
    node: NodeClock,
    /// The node's time when it was read last.
    read: u64,
    /// No line is older than the container.
    oldest: u64,
    /// The last timestamps on standard output and standard error.
    last: [u64; 2],
    second: u64,
    text: String,
}

/// When a line was printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LineTime {
    /// Now.
    Now,
    /// At this time, or that of the line before if that is later.
    NotBefore(u64),
    /// At this time, even if the line before is newer.
    At(u64),
}

impl LogClock {
    /// Creates the clock of a container that starts now.
    pub(crate) fn new(node: NodeClock) -> Self {
        let now = node.nanos();
        Self {
            node,
            read: now,
            oldest: now,
            last: [0; 2],
            second: 0,
            text: String::new(),
        }
    }

    /// Returns the timestamp of a line in nanoseconds since the Unix epoch.
    pub(crate) fn stamp(&mut self, time: LineTime, is_stderr: bool) -> u64 {
        let newest = self.last[0].max(self.last[1]);
        let stamp = match time {
            LineTime::Now => self.stamp_now(is_stderr),
            LineTime::NotBefore(nanos) => nanos.max(newest),
            LineTime::At(nanos) => nanos,
        };
        self.last[usize::from(is_stderr)] = stamp;
        stamp
    }

    fn stamp_now(&mut self, is_stderr: bool) -> u64 {
        let now = self.node.nanos();
        if now < self.read {
            (self.last, self.oldest) = ([0; 2], 0);
        }
        self.read = now;
        let delay = self.node.write_delay();
        if delay == 0 {
            return now.max(self.last[0]).max(self.last[1]);
        }
        let printed = now.saturating_sub(system::random::random_range(0..=delay));
        printed.max(self.last[usize::from(is_stderr)]).max(self.oldest)
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

const NANOS: u64 = 1_000_000_000;
