//! Resumes a stream in a new response, or records a gap if it cannot be resumed.

use bus::{Content, Gap, GapReason, Timestamp};
use system::clock::Instant;

use super::{
    Stream, TailFingerprint,
    doubt::Doubt,
    expected_files::FileStart,
    opening::Opening,
    resume_search::{Extent, ResumeSearch, SearchResult, Unmatched},
};
use crate::{
    anchor::{Anchor, ResumePoint, fingerprint},
    publish::checkpoint::StreamStart,
};

impl Stream {
    /// Returns whether a response must contain what was read before.
    pub fn must_resume(&self) -> bool {
        !self.is_at_file_start && (self.confirmed.is_some() || self.unconfirmed.is_some())
    }

    /// Returns the last line that was numbered.
    pub fn confirmed(&self) -> Option<ResumePoint> {
        self.confirmed
    }

    /// Records that lines from before the first one may be missing: the log was not read since the
    /// container started.
    pub fn suspect_start(&mut self) {
        self.suspects_start = self.has_no_lines();
    }

    /// Records that the log is opened for the first time. `started`: when the container started, in
    /// whole seconds of the node's clock.
    pub fn open_first(&mut self, started: Timestamp, at: Instant) {
        self.opening = self.has_no_lines().then(|| Opening::new(started, at));
    }

    /// Returns whether lines may be missing in front of a log without lines.
    pub fn suspects_empty_log(&self) -> bool {
        self.suspects_start && self.is_empty()
    }

    /// Records, before there is a first line, that lines in front of it may be missing.
    pub fn record_suspected_start(&mut self) {
        (self.suspects_start, self.opening) = (false, None);
        let now = Timestamp::now();
        if self.doubt == Doubt::None {
            self.record_jump(0, GapReason::Suspected, now);
        } else {
            self.settle_doubt(Some(now));
        }
    }

    /// Starts a new response.
    pub fn start_response(&mut self, extent: Extent) {
        self.flush_all();
        let extent = if self.must_resume() || extent == Extent::Skipped {
            extent
        } else {
            Extent::New
        };
        let search = ResumeSearch::new(extent, self.confirmed, self.unconfirmed);
        self.lines.start_response(search);
        (self.new_lines, self.unmatched) = (0, None);
        // The resume point covers what was expected.
        self.expected_files = Default::default();
    }

    /// Expects the current file, which the follow has not reached. `follows_silence`: files before
    /// it may have come and gone unseen.
    pub fn expect_file(&mut self, start: FileStart, follows_silence: bool) {
        self.expected_files.push(start, follows_silence);
    }

    /// Records that the follow is in this file, whose first line has the sequence number `seq`.
    pub fn reach_file(&mut self, start: &FileStart, seq: u64, follows_silence: bool) {
        let has_skipped = self.expected_files.reach(start.hash);
        if has_skipped {
            self.record_jump(seq, GapReason::Rotated, start.time);
        } else if follows_silence {
            self.record_jump(seq, GapReason::Suspected, start.time);
        }
    }

    /// Records that files may have been skipped before the line with this sequence number.
    pub fn suspect_jump(&mut self, seq: u64) {
        self.record_jump(seq, GapReason::Suspected, Timestamp::now());
    }

    /// Returns the last expected file that the follow has reached.
    pub fn reached_file(&self) -> Option<u64> {
        self.expected_files.reached()
    }

    /// Returns whether the follow has not reached an expected file.
    pub fn expects_file(&self) -> bool {
        !self.expected_files.is_empty()
    }

    /// Resumes after `lines` lines, which were read before: they are counted and dropped, and the
    /// last of them must match its anchor.
    pub fn resume_after(&mut self, lines: u64) {
        let search = ResumeSearch::new(Extent::Counted(lines), self.confirmed, None);
        if search.is_none() {
            self.prove_position();
        }
        self.lines.start_response(search);
        self.unmatched = None;
    }

    /// Ends the search for the resume point, because the response is complete.
    pub fn end_resume_search(&mut self) {
        let result = self.lines.end_search();
        self.apply_search_result(result);
    }

    /// Returns whether a follow delivered everything that is known of the log: it contained the
    /// resume point, no line is incomplete, and no file is expected.
    pub fn is_caught_up(&self) -> bool {
        !self.is_searching() && self.lines.rest().is_empty() && self.expected_files.is_empty()
    }

    /// Continues after the last line read in a log that ends with it.
    pub fn cancel_resume_search(&mut self) {
        self.prove_position();
        self.lines.start_response(None);
    }

    /// Returns whether the response does not contain the resume point.
    pub fn is_mismatched(&self) -> bool {
        self.unmatched.is_some()
    }

    /// Returns the response without the resume point, whose lines are dropped.
    pub fn take_unmatched(&mut self) -> Option<Unmatched> {
        let unmatched = self.unmatched.take()?;
        self.lines.start_response(None);
        Some(unmatched)
    }

    /// Records that the current file does not contain the last line read. Whether lines are missing
    /// before its first line is unknown; it is read next. If lines of it were read already, it is
    /// not read again.
    pub fn restart_at_file(&mut self, unmatched: Unmatched) -> AfterUnmatched {
        if unmatched.file.is_some() && unmatched.file == self.read_file {
            return AfterUnmatched::SkipFile;
        }
        self.read_file = unmatched.file;
        let first = unmatched.first.unwrap_or_else(Timestamp::now);
        self.continue_elsewhere(GapReason::Suspected, Some(first));
        self.is_at_file_start = true;
        AfterUnmatched::ReadFile
    }

    /// Continues behind a line that is not numbered; `None`: behind an empty file.
    pub fn skip_to(&mut self, last: Option<Anchor>, is_gap: bool) {
        if is_gap {
            self.record_gap(GapReason::Suspected, Some(Timestamp::now()));
        }
        self.next_seq = self.reserved_seq;
        (self.suspects_start, self.opening) = (false, None);
        self.is_at_file_start = last.is_none();
        if let Some(anchor) = last {
            self.confirmed = Some(ResumePoint {
                seq_end: self.next_seq,
                anchor,
            });
        }
        self.lines.start_response(None);
    }

    /// Records that the file of the last search contains the last line read.
    pub fn set_read_file(&mut self) {
        self.read_file = self.lines.file().or(self.read_file);
    }

    /// Returns whether the response had no line.
    pub fn holds_nothing(&self) -> bool {
        self.lines.buffered_bytes() == 0
    }

    /// Records the gap of a response that belongs to this instance but does not contain the resume
    /// point. The stream continues if every line read is confirmed; otherwise a new one starts.
    pub fn record_mismatch(&mut self) {
        if let Some(Unmatched { first, .. }) = self.unmatched.take() {
            let reason = if self.is_all_confirmed() {
                GapReason::Rotated
            } else {
                GapReason::Away
            };
            self.continue_elsewhere(reason, first);
            self.flush();
        }
    }

    /// Continues with a line that does not follow the last one read, in this stream if every line
    /// read is confirmed.
    fn continue_elsewhere(&mut self, reason: GapReason, first: Option<Timestamp>) {
        if self.doubt != Doubt::None {
            return self.settle_doubt(first);
        }
        let first = first.unwrap_or_else(Timestamp::now);
        if self.is_all_confirmed() {
            return self.record_jump(self.next_seq, reason, first);
        }
        system::probe!("resume: the anchor is not found");
        tracing::warn!(stream = %self.id(), "resume anchor not found, starting a new stream");
        self.restart_stream(reason, Some(first), false);
    }

    fn is_all_confirmed(&self) -> bool {
        self.has_resumed && self.reserved_seq == self.next_seq
    }

    /// Ends the stream with a gap, and starts a new one with the next line, whose time is `first`.
    /// `may_repeat`: its lines can be lines of this stream.
    pub(super) fn restart_stream(&mut self, reason: GapReason, first: Option<Timestamp>, may_repeat: bool) {
        let last = self.confirmed.map(|confirmed| confirmed.anchor.timestamp());
        self.record_gap(reason, first);
        self.push(self.reserved_seq, Content::End, None);
        self.start_epoch(StreamStart {
            after: None,
            may_repeat,
        });
        if may_repeat {
            let gap = Gap {
                lines: 0,
                reason: GapReason::MayRepeat,
                from: last.filter(|last| last.0 != i64::MIN),
                to: None,
            };
            self.push_gap(0, gap);
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
            None | Some(SearchResult::Located { .. }) => {}
            Some(SearchResult::Confirmed) => {
                self.has_resumed = true;
                self.prove_position();
            }
            Some(SearchResult::Unconfirmed { held }) => {
                self.has_resumed = true;
                // The lines before the held ones were sent. The bus has them or readers declare the
                // gap.
                let seq = self.reserved_seq - held.min(self.reserved_seq);
                if seq > self.next_seq {
                    system::probe!("resume: lines between checkpoint and anchor are gone");
                    tracing::warn!(stream = %self.id(), lines = seq - self.next_seq, "unconfirmed lines cannot be read again");
                }
                self.next_seq = seq;
                if self.doubt == Doubt::Position {
                    self.doubt = Doubt::None;
                }
            }
            Some(SearchResult::NotFound(unmatched)) => self.unmatched = Some(unmatched),
        }
    }

    /// Records a gap of an unknown number of lines behind those with sequence numbers.
    ///
    /// If it is only suspected, the bus may have the lines that were sent to it and not confirmed:
    /// readers declare those that it has not. Otherwise they are lost as well.
    pub(super) fn record_gap(&mut self, reason: GapReason, to: Option<Timestamp>) {
        if self.doubt != Doubt::None {
            self.is_position_proved = false;
            return self.settle_doubt(to);
        }
        if reason != GapReason::Suspected {
            self.record_unconfirmed_gap(reason.clone());
        }
        let last = self.unconfirmed.filter(|_| self.reserved_seq > self.next_seq);
        let from = last.or(self.confirmed).map(|last| last.anchor.timestamp());
        let gap = Gap {
            lines: 0,
            reason,
            from: from.filter(|from| from.0 != i64::MIN),
            to,
        };
        self.push_gap(self.reserved_seq, gap);
    }

    /// Records a gap of the lines that were numbered and sent, and cannot be sent again.
    fn record_unconfirmed_gap(&mut self, reason: GapReason) {
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

/// How to continue with a file that does not contain the last line read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterUnmatched {
    /// The gap is recorded, and the file is read from its start.
    ReadFile,
    /// Lines of it were read, and it must be skipped.
    SkipFile,
}
