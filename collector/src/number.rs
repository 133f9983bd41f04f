//! Lines get their numbers, before anything may drop them, and holes between them their losses.

use bus::{Content, Loss, LossReason, Timestamp};

use crate::{
    anchor::{Mark, Progress},
    lines::Slice,
    lost::times,
    stream::Stream,
};

impl Stream {
    /// Numbers lines, and hands them on.
    pub(crate) fn number(&mut self, mut slice: Slice) {
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
    pub(crate) fn rotated(&mut self, to: Timestamp) {
        if self.rotated_at.replace(self.next_seq) == Some(self.next_seq) {
            return;
        }
        tracing::warn!(stream = %self.id(), "the node rotated its log faster than it could be read");
        let loss = Loss {
            lines: 0,
            reason: LossReason::Rotated,
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

    fn take_in(&mut self, slice: Slice) {
        let Slice { data, lines, part, end } = slice;
        let seq = self.next_seq;
        self.next_seq += lines;
        self.news += lines;
        self.used = self.used.max(self.next_seq);
        let metrics = self.outlet.metrics();
        metrics.lines.inc_by(lines);
        metrics.bytes.inc_by(data.len() as u64);
        let mark = Mark {
            seq_end: self.next_seq,
            anchor: end,
        };
        self.had = Some(mark);
        self.push(seq, Content::Lines { data, lines, part }, Some(mark));
    }
}
