//! Which bytes written to a connection are confirmed.
//!
//! The acknowledgment of the receiver's kernel is not enough: a receiver that is killed loses what
//! its kernel has buffered, 64 KiB to many megabytes. Acknowledged bytes are confirmed once the
//! connection has stayed open for a while, or once both sides have closed it in order, never by the
//! number of bytes that follow. A receiver that leaves bytes unread for longer can lose lines with
//! syslog over TCP.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

/// The time after its acknowledgment that confirms a byte if the connection stays open.
pub(crate) const CONFIRMING_TIME: Duration = Duration::from_secs(30);

/// The minimum interval between two samples.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);

/// The bytes written to one connection.
#[derive(Default)]
pub(crate) struct Unconfirmed {
    /// Positions in the connection, in bytes, with the number of items that end up to there.
    marks: VecDeque<(u64, u64)>,
    /// The number of acknowledged bytes at points in time.
    samples: VecDeque<(Instant, u64)>,
    acknowledged: u64,
    /// Confirmed items.
    confirmed: u64,
}

impl Unconfirmed {
    /// Records that the first `items` items lie within the first `bytes` bytes of the connection.
    pub(crate) fn wrote(&mut self, bytes: u64, items: u64) {
        if self.marks.back().is_none_or(|(_, last)| *last < items) {
            self.marks.push_back((bytes, items));
        }
    }

    /// Whether everything written is confirmed.
    pub(crate) fn is_empty(&self) -> bool {
        self.marks.is_empty()
    }

    /// Records that the receiver's kernel has acknowledged the first `bytes` bytes. Returns the
    /// number of items confirmed since the connection began.
    pub(crate) fn acknowledge(&mut self, bytes: u64, now: Instant) -> u64 {
        self.acknowledged = self.acknowledged.max(bytes);
        let is_due = self
            .samples
            .back()
            .is_none_or(|(at, last)| now - *at >= SAMPLE_INTERVAL && *last < self.acknowledged);
        if is_due {
            self.samples.push_back((now, self.acknowledged));
        }
        let mut confirmed = 0;
        while let Some((_, bytes)) = self.samples.front().filter(|(at, _)| now - *at >= CONFIRMING_TIME) {
            system::probe!("confirmation: the connection stayed open for the confirming time");
            confirmed = confirmed.max(*bytes);
            self.samples.pop_front();
        }
        self.confirm(confirmed)
    }

    /// Confirms everything: both sides have closed the connection in order. Returns the number of
    /// items.
    pub(crate) fn confirm_all(&mut self) -> u64 {
        system::probe!("confirmation: both sides have closed");
        self.confirm(u64::MAX)
    }

    fn confirm(&mut self, bytes: u64) -> u64 {
        while let Some((_, items)) = self.marks.front().filter(|(end, _)| *end <= bytes) {
            self.confirmed = *items;
            self.marks.pop_front();
        }
        self.confirmed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acknowledged_bytes_are_confirmed_by_time_and_never_by_later_bytes() {
        let (mut written, start) = (Unconfirmed::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        written.wrote(1000, 1);
        written.wrote(100 << 20, 2);
        assert_eq!(written.acknowledge(1000, at(0)), 0, "acknowledged but not confirmed");
        assert_eq!(
            written.acknowledge(100 << 20, at(29)),
            0,
            "a receiver's kernel can buffer 100 MiB"
        );
        assert_eq!(written.acknowledge(100 << 20, at(30)), 1, "open for 30 seconds");
        assert!(!written.is_empty());
        assert_eq!(written.acknowledge(100 << 20, at(59)), 2);
        assert!(written.is_empty());
        written.wrote(101 << 20, 3);
        assert_eq!(written.confirm_all(), 3);
    }

    #[test]
    fn a_connection_with_a_permanent_backlog_confirms_lines() {
        let (mut written, start) = (Unconfirmed::default(), Instant::now());
        let mut confirmed = 0;
        for second in 1..=100u64 {
            written.wrote(second * 100_000, second);
            // 64 KiB are always unacknowledged.
            confirmed = written.acknowledge(second * 100_000 - 65_536, start + Duration::from_secs(second));
        }
        assert!((65..=70).contains(&confirmed), "{confirmed}");
    }

    #[test]
    fn a_slow_connection_confirms_each_item_after_30_seconds() {
        let (mut written, start) = (Unconfirmed::default(), Instant::now());
        for second in 0..100 {
            written.wrote((second + 1) * 10, second + 1);
            let confirmed = written.acknowledge((second + 1) * 10, start + Duration::from_secs(second));
            assert_eq!(confirmed, (second + 1).saturating_sub(30), "second {second}");
        }
    }
}
