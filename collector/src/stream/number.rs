//! Assigns sequence numbers to lines before any of them can be dropped, and records gaps between
//! them.

use bus::{Content, Gap, GapReason, Timestamp};

use super::{OverLimit, Stream, doubt::Doubt, lines::Slice, log_end::End};
use crate::{
    anchor::{AnchorState, ResumePoint},
    publish::{entry::OutboxEntry, gap::time_range},
};

impl Stream {
    /// Numbers lines and passes them on.
    pub(super) fn number(&mut self, mut slice: Slice) {
        if self.doubt != Doubt::None {
            self.settle_doubt(time_range(&slice.data).0);
        }
        self.has_resumed = true;
        self.check_opening(&slice);
        if std::mem::take(&mut self.suspects_start) && self.next_seq == 0 {
            let (first, _) = time_range(&slice.data);
            self.record_jump(0, GapReason::Suspected, first.unwrap_or_else(Timestamp::now));
        }
        while !self.expected_files.is_empty()
            && let Some(jump) = self.expected_files.next_jump(&slice.data)
        {
            if jump.at > 0 {
                let front = slice.split_front(jump.at, self.last_state());
                self.admit(front);
            }
            let (first, _) = time_range(&slice.data);
            self.record_jump(self.next_seq, jump.reason, first.unwrap_or_else(Timestamp::now));
        }
        self.admit(slice);
    }

    /// Suspects lines in front of the first one if these lines show that the log was opened late.
    fn check_opening(&mut self, slice: &Slice) {
        let Some(opening) = &mut self.opening else { return };
        let first = time_range(&slice.data).0;
        let first = *opening
            .first
            .get_or_insert_with(|| first.unwrap_or_else(Timestamp::now));
        let (was_late, is_over) = (opening.was_late(slice.end.time), opening.is_over());
        if was_late || is_over {
            self.opening = None;
        }
        if was_late && self.next_seq == 0 {
            self.suspects_start = true;
        } else if was_late {
            self.record_jump(0, GapReason::Suspected, first);
        }
    }

    /// Records, once per position, that the lines from `seq` on are of a later file than those
    /// before.
    pub(super) fn record_jump(&mut self, seq: u64, reason: GapReason, to: Timestamp) {
        if self.jump_recorded_at.replace(seq) == Some(seq) {
            return;
        }
        tracing::warn!(stream = %self.id(), seq, ?reason, "gap detected, log rotated before it was read");
        let from = self.confirmed.filter(|confirmed| confirmed.seq_end == seq);
        let gap = Gap {
            lines: 0,
            reason,
            from: from.map(|confirmed| confirmed.anchor.timestamp()),
            to: Some(to),
        };
        self.push_gap(seq, gap);
    }

    /// Returns the anchor state at the last line read.
    fn last_state(&self) -> AnchorState {
        self.confirmed.map_or(AnchorState::START, |confirmed| AnchorState {
            time: confirmed.anchor.time,
            high: confirmed.anchor.high,
            ordinal: confirmed.anchor.ordinal,
        })
    }

    /// Applies the rate limit.
    fn admit(&mut self, mut slice: Slice) {
        let admitted = self.outbox.admit(&self.metadata.app, &slice.data);
        if admitted >= slice.data.len() {
            return self.enqueue(slice);
        }
        if admitted > 0 {
            let front = slice.split_front(admitted, self.last_state());
            self.enqueue(front);
        }
        self.drop_over_limit(slice);
    }

    fn enqueue(&mut self, slice: Slice) {
        let (seq, point) = self.assign_seqs(&slice);
        let Slice { data, lines, part, .. } = slice;
        self.push(seq, Content::Lines { data, lines, part }, Some(point));
    }

    /// Dropped lines have sequence numbers too, so that reading them again yields the same numbers.
    fn drop_over_limit(&mut self, slice: Slice) {
        let (seq, end) = self.assign_seqs(&slice);
        let (from, to) = time_range(&slice.data);
        let over_limit = self.over_limit.get_or_insert(OverLimit {
            seq,
            gap: Gap {
                lines: 0,
                reason: GapReason::Limit,
                from,
                to,
            },
            end,
        });
        over_limit.gap.lines += slice.lines;
        over_limit.gap.to = to.or(over_limit.gap.to);
        over_limit.end = end;
        self.schedule_flush();
    }

    /// Records the gap of lines dropped by the rate limit.
    pub(super) fn flush_over_limit(&mut self) {
        if let Some(OverLimit { seq, gap, end }) = self.over_limit.take() {
            self.outbox.metrics().record_gap(&gap.reason, gap.lines);
            let batch = self.batch(seq, Content::Gap(gap));
            self.outbox.push(OutboxEntry::Batch(batch, Some(end)));
        }
    }

    fn assign_seqs(&mut self, slice: &Slice) -> (u64, ResumePoint) {
        let seq = self.next_seq;
        self.next_seq += slice.lines;
        self.new_lines += slice.lines;
        self.reserved_seq = self.reserved_seq.max(self.next_seq);
        let metrics = self.outbox.metrics();
        metrics.lines.inc_by(slice.lines);
        metrics.bytes.inc_by(slice.data.len() as u64);
        let point = ResumePoint {
            seq_end: self.next_seq,
            anchor: slice.end,
        };
        self.confirmed = Some(point);
        self.log_end.set(End::Line(point.anchor));
        self.is_at_file_start = false;
        (seq, point)
    }

    pub(super) fn push_gap(&mut self, seq: u64, gap: Gap) {
        self.outbox.metrics().record_gap(&gap.reason, gap.lines);
        self.push(seq, Content::Gap(gap), None);
    }
}
