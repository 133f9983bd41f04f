//! What a receiver has for sure, of what was written to its connection.
//!
//! Its kernel's acknowledgement is not enough: a receiver that is killed leaves unread what its kernel has taken, 64 KiB and more. So what is confirmed is taken for sure once
//! so much more was confirmed behind it that it cannot lie unread any more, or the connection has stayed open for a while. What a receiver leaves unread for longer than that is
//! beyond syslog over TCP.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

/// How many more bytes a receiver must have confirmed: more than kernels let lie unread.
pub(crate) const BEHIND: u64 = 8 << 20;

/// How long the connection must have stayed open.
pub(crate) const OPEN_FOR: Duration = Duration::from_secs(30);

/// How often at most it is noted how much was confirmed.
const GRAIN: Duration = Duration::from_secs(1);

/// What was written to one connection.
#[derive(Default)]
pub(crate) struct Unconfirmed {
    /// Where pieces end: in bytes of the connection, and how many pieces end until there.
    marks: VecDeque<(u64, u64)>,
    /// How much was confirmed when.
    samples: VecDeque<(Instant, u64)>,
    confirmed: u64,
    sure: u64,
}

impl Unconfirmed {
    /// Notes that `pieces` pieces, all in all, lie wholly within the first `bytes` bytes.
    pub(crate) fn wrote(&mut self, bytes: u64, pieces: u64) {
        if self.marks.back().is_none_or(|(_, last)| *last < pieces) {
            self.marks.push_back((bytes, pieces));
        }
    }

    /// Notes that the receiver's kernel has acknowledged so many bytes; returns how many pieces, all in all, it has for sure.
    pub(crate) fn confirm(&mut self, bytes: u64, now: Instant) -> u64 {
        self.confirmed = self.confirmed.max(bytes);
        let due = self
            .samples
            .back()
            .is_none_or(|(at, last)| now - *at >= GRAIN && *last < self.confirmed);
        if due {
            self.samples.push_back((now, self.confirmed));
        }
        let mut sure = self.confirmed.saturating_sub(BEHIND);
        while let Some((_, bytes)) = self.samples.front().filter(|(at, _)| now - *at >= OPEN_FOR) {
            sure = sure.max(*bytes);
            self.samples.pop_front();
        }
        self.reach(sure)
    }

    /// The connection was ended by us, and the receiver closed it in good order: it has all of it.
    pub(crate) fn all(&mut self) -> u64 {
        self.reach(u64::MAX)
    }

    fn reach(&mut self, bytes: u64) -> u64 {
        while let Some((_, pieces)) = self.marks.front().filter(|(end, _)| *end <= bytes) {
            self.sure = *pieces;
            self.marks.pop_front();
        }
        self.sure
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_took_is_sure_only_with_much_behind_it_or_after_a_while() {
        let (mut written, begun) = (Unconfirmed::default(), Instant::now());
        let at = |seconds| begun + Duration::from_secs(seconds);
        written.wrote(1000, 1);
        written.wrote(BEHIND + 1000, 2);
        assert_eq!(
            written.confirm(1000, at(0)),
            0,
            "its kernel has it, and perhaps nobody else"
        );
        assert_eq!(written.confirm(1000, at(29)), 0);
        assert_eq!(written.confirm(1000, at(30)), 1, "open for half a minute");
        assert_eq!(written.confirm(BEHIND + 1000, at(31)), 1);
        written.wrote(2 * BEHIND + 1000, 3);
        assert_eq!(written.confirm(2 * BEHIND + 999, at(32)), 1, "one byte short");
        assert_eq!(written.confirm(2 * BEHIND + 1000, at(32)), 2, "much behind it");
        assert_eq!(written.all(), 3);
    }

    #[test]
    fn a_busy_connection_whose_queue_is_never_empty_confirms_all_the_same() {
        let (mut written, begun) = (Unconfirmed::default(), Instant::now());
        let mut sure = 0;
        for n in 1..=1000u64 {
            written.wrote(n * 100_000, n);
            // Always 64 KiB behind.
            sure = written.confirm(n * 100_000 - 65_536, begun + Duration::from_millis(n));
        }
        assert!(sure >= 914, "{sure}");
    }

    #[test]
    fn a_quiet_connection_confirms_each_piece_in_its_time() {
        let (mut written, begun) = (Unconfirmed::default(), Instant::now());
        for second in 0..100 {
            written.wrote((second + 1) * 10, second + 1);
            let sure = written.confirm((second + 1) * 10, begun + Duration::from_secs(second));
            assert_eq!(sure, (second + 1).saturating_sub(30), "second {second}");
        }
    }
}
