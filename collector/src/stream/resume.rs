//! Resuming a stream in a new response, and the gaps where it cannot be resumed.

use std::sync::Arc;

use bus::{Content, Gap, GapReason, StreamMetadata, Timestamp};

use super::{
    Mismatch, Stream, TailFingerprint, expected_lines,
    metadata::new_stream_id,
    resume_search::{ResumeSearch, SearchResult},
};
use crate::{anchor::fingerprint, publish::entry::OutboxEntry};

impl Stream {
    /// From when on to read, so that the last line had is read again. `None`: from the beginning.
    pub fn since(&self) -> Option<Timestamp> {
        // A line without any timestamp before it cannot be asked for.
        self.confirmed
            .filter(|confirmed| confirmed.anchor.time != i64::MIN)
            .map(|confirmed| confirmed.anchor.timestamp())
    }

    /// What a response must contain to go on from here.
    pub fn seek(&self) -> Option<ResumeSearch> {
        ResumeSearch::new(self.confirmed, self.unconfirmed)
    }

    /// A new response begins.
    pub fn start_response(&mut self) {
        self.flush_all();
        self.lines.start_response(self.seek(), self.since().is_some());
        (self.new_lines, self.mismatch) = (0, None);
        // What the response must contain says all.
        self.expected_lines.clear();
    }

    /// A file was seen to hold this line: where it is still to come, it must.
    pub fn expect_line(&mut self, line: expected_lines::ExpectedLine) {
        if self
            .confirmed
            .is_none_or(|confirmed| confirmed.anchor.time < line.time.0)
        {
            self.expected_lines.push(line);
        }
    }

    /// What is read next are the lines behind the seq `from` of this stream: those that are had are counted and dropped, and the last of them proves the place.
    pub fn resume_after(&mut self, from: u64) {
        self.lines.start_response(
            ResumeSearch::counted(self.next_seq - from.min(self.next_seq), self.confirmed),
            false,
        );
        self.mismatch = None;
    }

    /// Before the next line others may be missing: tells so, in its place.
    pub fn record_gap_before_next(&mut self, reason: GapReason, to: Timestamp) {
        self.flush_all();
        self.record_gap(reason, to);
        self.next_seq = self.reserved_seq;
        self.lines.start_response(None, false);
    }

    /// What is read next, first at this time, does not join what was had: tells so, and begins a new stream with it.
    pub fn restart_after_gap(&mut self, first: Option<Timestamp>) {
        self.mismatch = Some(Mismatch { first });
        self.record_mismatch();
        self.lines.start_response(None, false);
    }

    /// The response ended, as a plain one does: where it did not join, it never will.
    pub fn end_resume_search(&mut self) {
        let apply_search_result = self.lines.end_search();
        self.apply_search_result(apply_search_result);
    }

    /// Whether the response turned out not to join. Its lines wait for [`record_mismatch`](Self::record_mismatch), or go with the response.
    pub fn is_mismatched(&self) -> bool {
        self.mismatch.is_some()
    }

    /// The response is this instance's and does not join: tells what is not known. Where nothing read is in doubt the stream goes on; else a new one begins
    /// with the response's lines.
    pub fn record_mismatch(&mut self) {
        if let Some(Mismatch { first }) = self.mismatch.take() {
            let first = first.unwrap_or_else(Timestamp::now);
            if self.has_resumed && self.reserved_seq == self.next_seq {
                self.record_rotation(first);
                return self.flush();
            }
            tracing::warn!(stream = %self.id(), "log does not join what was read of it");
            self.record_gap(GapReason::Away, first);
            self.push(self.reserved_seq, Content::End, None);
            self.start_new_epoch();
            self.flush();
        }
    }

    /// Whether it is still undecided where the response joins.
    pub fn is_searching(&self) -> bool {
        self.lines.is_searching()
    }

    /// Lines numbered since the response began, and how it ended.
    pub fn response_ended(&mut self) -> (u64, TailFingerprint) {
        self.flush_all();
        (self.new_lines, self.tail())
    }

    /// How the response ends so far.
    pub fn tail(&self) -> TailFingerprint {
        let tail_fingerprint = self.lines.rest();
        if tail_fingerprint.is_empty() {
            TailFingerprint::default()
        } else {
            TailFingerprint(tail_fingerprint.len(), fingerprint(tail_fingerprint))
        }
    }

    /// Text at the end of the response that is no line and no beginning of one: the kubelet speaks, or a timestamp was torn.
    pub fn untimestamped_rest(&self) -> Option<&[u8]> {
        let tail_fingerprint = self.lines.rest();
        let foreign = !tail_fingerprint.is_empty()
            && self.lines.rest_starts_line()
            && Timestamp::split_line(tail_fingerprint).is_none();
        foreign.then_some(tail_fingerprint)
    }

    pub(super) fn apply_search_result(&mut self, apply_search_result: Option<SearchResult>) {
        match apply_search_result {
            None | Some(SearchResult::Confirmed) => {}
            Some(SearchResult::Unconfirmed { held, first }) => {
                let seq = self.reserved_seq - held.min(self.reserved_seq);
                let lost = seq - self.next_seq;
                if lost > 0 {
                    tracing::warn!(stream = %self.id(), lost, "lines rotated away while the collector was away");
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
            }
            Some(SearchResult::NotFound { first }) => self.mismatch = Some(Mismatch { first }),
        }
    }

    pub(super) fn start_new_epoch(&mut self) {
        // The parts of the id were those of an id before: they are valid.
        if let Ok(stream) = new_stream_id(&self.key) {
            let metadata = StreamMetadata {
                stream,
                ..StreamMetadata::clone(&self.metadata)
            };
            self.metadata = Arc::new(metadata);
            self.outbox.push(OutboxEntry::Start(Arc::clone(&self.metadata)));
            (self.next_seq, self.reserved_seq, self.confirmed, self.unconfirmed) = (0, 0, None, None);
        }
    }

    /// What was had may not be all: tells the lines that have numbers as such, and the others by their times.
    pub(super) fn record_gap(&mut self, reason: GapReason, to: Timestamp) {
        let confirmed = self.confirmed.map(|confirmed| confirmed.anchor.timestamp());
        let farthest = self
            .unconfirmed
            .map(|unconfirmed| unconfirmed.anchor.timestamp())
            .filter(|_| self.reserved_seq > self.next_seq);
        if self.reserved_seq > self.next_seq {
            self.push_gap(
                self.next_seq,
                Gap {
                    lines: self.reserved_seq - self.next_seq,
                    reason: reason.clone(),
                    from: confirmed,
                    to: farthest,
                },
            );
        }
        self.push_gap(
            self.reserved_seq,
            Gap {
                lines: 0,
                reason,
                from: farthest.or(confirmed),
                to: Some(to),
            },
        );
    }
}
