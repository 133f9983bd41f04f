//! Lines get their numbers, before anything may drop them, and holes between them their losses.

use bus::{Content, Gap, GapReason, Timestamp};

use super::{OverLimit, Stream, lines::Slice};
use crate::{
    anchor::{Mark, Progress},
    publish::{entry::Step, gap::times},
};

impl Stream {
    /// Numbers lines, and hands them on.
    pub(super) fn number(&mut self, mut slice: Slice) {
        self.live = true;
        while let Some(at) = self.marks.passed(&slice) {
            if at > 0 {
                let front = slice.split_front(at, self.place());
                self.take_in(front);
            }
            let (first, _) = times(&slice.data);
            self.rotated(first.unwrap_or_else(Timestamp::now));
        }
        self.take_in(slice);
    }

    /// The file was rotated behind the last line had, and what came until then may not be all. Told once in a place.
    pub(super) fn rotated(&mut self, to: Timestamp) {
        if self.rotated_at.replace(self.next_seq) == Some(self.next_seq) {
            return;
        }
        tracing::warn!(stream = %self.id(), "the node rotated its log faster than it could be read");
        let loss = Gap {
            lines: 0,
            reason: GapReason::Rotated,
            from: self.had.map(|had| had.anchor.timestamp()),
            to: Some(to),
        };
        self.tell(self.next_seq, loss);
    }

    /// At the last line had.
    fn place(&self) -> Progress {
        self.had.map_or(Progress::START, |had| Progress {
            time: had.anchor.time,
            high: had.anchor.high,
            ordinal: had.anchor.ordinal,
        })
    }

    /// What the app may print passes, the rest is lost.
    fn take_in(&mut self, mut slice: Slice) {
        let passes = self.outlet.admit(&self.metadata.app, &slice.data);
        if passes >= slice.data.len() {
            return self.pass(slice);
        }
        if passes > 0 {
            let front = slice.split_front(passes, self.place());
            self.pass(front);
        }
        self.drop_above(slice);
    }

    fn pass(&mut self, slice: Slice) {
        let (seq, mark) = self.count(&slice);
        let Slice { data, lines, part, .. } = slice;
        self.push(seq, Content::Lines { data, lines, part }, Some(mark));
    }

    /// The lines have their numbers: the next time they are read they get the same.
    fn drop_above(&mut self, slice: Slice) {
        let (seq, end) = self.count(&slice);
        let (from, to) = times(&slice.data);
        let above = self.above.get_or_insert(OverLimit {
            seq,
            loss: Gap {
                lines: 0,
                reason: GapReason::Limit,
                from,
                to,
            },
            end,
        });
        above.loss.lines += slice.lines;
        above.loss.to = to.or(above.loss.to);
        above.end = end;
        self.gather();
    }

    /// Tells what was above the limit, where anything was.
    pub(super) fn tell_above(&mut self) {
        if let Some(OverLimit { seq, loss, end }) = self.above.take() {
            self.outlet.metrics().lost((&loss.reason).into(), loss.lines);
            let batch = self.batch(seq, Content::Gap(loss));
            self.outlet.push(Step::Batch(batch, Some(end)));
        }
    }

    fn count(&mut self, slice: &Slice) -> (u64, Mark) {
        let seq = self.next_seq;
        self.next_seq += slice.lines;
        self.news += slice.lines;
        self.used = self.used.max(self.next_seq);
        let metrics = self.outlet.metrics();
        metrics.lines.inc_by(slice.lines);
        metrics.bytes.inc_by(slice.data.len() as u64);
        let mark = Mark {
            seq_end: self.next_seq,
            anchor: slice.end,
        };
        self.had = Some(mark);
        (seq, mark)
    }

    pub(super) fn tell(&mut self, seq: u64, loss: Gap) {
        self.outlet.metrics().lost((&loss.reason).into(), loss.lines);
        self.push(seq, Content::Gap(loss), None);
    }
}
