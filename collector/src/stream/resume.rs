//! Resumes a stream in a new response, or records a gap if it cannot be resumed.

use bus::{Content, Gap, GapReason, Timestamp};

use super::{
    Mismatch, Stream, TailFingerprint,
    doubt::Doubt,
    expected_lines,
    resume_search::{ResumeSearch, SearchResult},
};
use crate::{anchor::fingerprint, publish::checkpoint::StreamStart};

impl Stream {
    /// Returns the time from which to read, so that the last line is read again. `None`: from the
    /// start of the log.
    pub fn since(&self) -> Option<Timestamp> {
        // A line that no timestamp precedes cannot be requested.
        self.confirmed
            .filter(|confirmed| confirmed.anchor.time != i64::MIN)
            .map(|confirmed| confirmed.anchor.timestamp())
    }

    /// Returns what a response must contain to resume.
    pub fn resume_search(&self) -> Option<ResumeSearch> {
        ResumeSearch::new(self.confirmed, self.unconfirmed)
    }

    /// Starts a new response.
    pub fn start_response(&mut self) {
        self.flush_all();
        self.lines.start_response(self.resume_search(), self.since().is_some());
        (self.new_lines, self.mismatch) = (0, None);
        // The resume point covers what was expected.
        self.expected_lines.clear();
    }

    /// Expects a line that a rotation probe read, unless it was read already.
    pub fn expect_line(&mut self, line: expected_lines::ExpectedLine) {
        if self
            .confirmed
            .is_none_or(|confirmed| confirmed.anchor.time < line.time.0)
        {
            self.expected_lines.push(line);
        }
    }

    /// Resumes after `lines` lines, which were read before: they are counted and dropped, and the
    /// last of them must match its anchor.
    pub fn resume_after(&mut self, lines: u64) {
        let search = ResumeSearch::counted(lines, self.confirmed);
        if search.is_none() {
            self.prove_position();
        }
        self.lines.start_response(search, false);
        self.mismatch = None;
    }

    /// Ends the search for the resume point, because the response is complete.
    pub fn end_resume_search(&mut self) {
        let result = self.lines.end_search();
        self.apply_search_result(result);
    }

    /// Returns whether a follow delivered everything that is known of the log: it contained the
    /// resume point, no line is incomplete, and no line is expected.
    pub fn is_caught_up(&self) -> bool {
        !self.is_searching() && self.lines.rest().is_empty() && self.expected_lines.is_empty()
    }

    /// Returns whether the response has no line after those that were dropped.
    pub fn holds_nothing(&self) -> bool {
        self.lines.buffered_bytes() == 0
    }

    /// Continues after the last line read in a log that ends with it.
    pub fn cancel_resume_search(&mut self) {
        self.prove_position();
        self.lines.start_response(None, false);
    }

    /// Returns whether the response does not contain the resume point. Its lines wait for
    /// [`record_mismatch`](Self::record_mismatch).
    pub fn is_mismatched(&self) -> bool {
        self.mismatch.is_some()
    }

    /// Records the gap of a response that belongs to this instance but does not contain the resume
    /// point. The stream continues if every line read is confirmed; otherwise a new one starts.
    pub fn record_mismatch(&mut self) {
        if let Some(Mismatch { first }) = self.mismatch.take() {
            if self.doubt != Doubt::None {
                self.settle_doubt(first);
                return self.flush();
            }
            let first = first.unwrap_or_else(Timestamp::now);
            if self.has_resumed && self.reserved_seq == self.next_seq {
                self.record_rotation(first);
                return self.flush();
            }
            system::probe!("resume: the anchor is not found");
            tracing::warn!(stream = %self.id(), "resume anchor not found, starting a new stream");
            self.record_gap(GapReason::Away, first);
            self.push(self.reserved_seq, Content::End, None);
            self.start_epoch(StreamStart::default());
            self.flush();
        }
    }

    /// Returns whether the search for the resume point is undecided.
    pub fn is_searching(&self) -> bool {
        self.lines.is_searching()
    }

    /// Returns the lines numbered since the response started, and how it ended.
    pub fn response_ended(&mut self) -> (u64, TailFingerprint) {
        self.flush_all();
        (self.new_lines, self.tail())
    }

    /// Returns how the response ends so far.
    pub fn tail(&self) -> TailFingerprint {
        let rest = self.lines.rest();
        if rest.is_empty() {
            TailFingerprint::default()
        } else {
            TailFingerprint(rest.len(), fingerprint(rest))
        }
    }

    /// Returns text at the end of the response that is not the start of a line: a kubelet error or
    /// a truncated timestamp.
    pub fn untimestamped_rest(&self) -> Option<&[u8]> {
        let rest = self.lines.rest();
        let is_untimestamped =
            !rest.is_empty() && self.lines.rest_starts_line() && Timestamp::split_line(rest).is_none();
        is_untimestamped.then_some(rest)
    }

    pub(super) fn apply_search_result(&mut self, result: Option<SearchResult>) {
        match result {
            None => {}
            Some(SearchResult::Confirmed) => self.prove_position(),
            Some(SearchResult::Unconfirmed { held, first }) => {
                let seq = self.reserved_seq - held.min(self.reserved_seq);
                let lost = seq - self.next_seq;
                if lost > 0 {
                    system::probe!("resume: lines between checkpoint and anchor are gone");
                    tracing::warn!(stream = %self.id(), lost, "gap detected, lines rotated away while the collector was stopped");
                    self.push_gap(
                        self.next_seq,
                        Gap {
                            lines: lost,
                            reason: GapReason::Away,
                            from: self.confirmed.map(|confirmed| confirmed.anchor.timestamp()),
                            to: first,
                        },
                    );
                }
                self.next_seq = seq;
                if self.doubt == Doubt::Position {
                    self.doubt = Doubt::None;
                }
            }
            Some(SearchResult::NotFound { first }) => self.mismatch = Some(Mismatch { first }),
        }
    }

    /// Records a gap: numbered lines by their sequence numbers, others by their times.
    pub(super) fn record_gap(&mut self, reason: GapReason, to: Timestamp) {
        if self.doubt != Doubt::None {
            self.is_position_proved = false;
            return self.settle_doubt(Some(to));
        }
        self.record_unconfirmed_gap(reason.clone());
        let last = self.unconfirmed.filter(|_| self.reserved_seq > self.next_seq);
        self.push_gap(
            self.reserved_seq,
            Gap {
                lines: 0,
                reason,
                from: last.or(self.confirmed).map(|last| last.anchor.timestamp()),
                to: Some(to),
            },
        );
    }

    /// Records a gap of the lines that were numbered and sent, and cannot be sent again.
    pub(super) fn record_unconfirmed_gap(&mut self, reason: GapReason) {
        if self.reserved_seq > self.next_seq {
            let gap = Gap {
                lines: self.reserved_seq - self.next_seq,
                reason,
                from: self.confirmed.map(|confirmed| confirmed.anchor.timestamp()),
                to: self.unconfirmed.map(|unconfirmed| unconfirmed.anchor.timestamp()),
            };
            self.push_gap(self.next_seq, gap);
        }
    }
}
