//! Which deliveries of a stream wait for which lines to be processed.

use std::ops::Range;

use crate::{Ack, batch::Gap, ranges::Ranges};

/// The open deliveries of one stream. Empty and without cost for readers that do not acknowledge.
#[derive(Debug, Default)]
pub(super) struct Acks {
    acknowledged: Ranges,
    open: Vec<(Range<u64>, Ack)>,
    gaps: Vec<GapAcks>,
}

/// The deliveries of one gap.
#[derive(Debug)]
struct GapAcks {
    seq: u64,
    gap: Gap,
    acknowledged: bool,
    open: Vec<Ack>,
}

impl Acks {
    /// Adds a delivery of lines. It is acknowledged once all its lines are, possibly at once.
    pub(super) fn add(&mut self, lines: Range<u64>, ack: Option<Ack>) {
        let Some(ack) = ack else { return };
        if self.acknowledged.covers(&lines) {
            ack.ack();
        } else {
            self.open.push((lines, ack));
        }
    }

    /// Adds a delivery of a gap. It is acknowledged once the gap is, possibly at once.
    pub(super) fn add_gap(&mut self, seq: u64, gap: &Gap, ack: Option<Ack>) {
        let Some(ack) = ack else { return };
        match self
            .gaps
            .iter_mut()
            .find(|recorded| recorded.seq == seq && recorded.gap == *gap)
        {
            Some(recorded) if recorded.acknowledged => ack.ack(),
            Some(recorded) => recorded.open.push(ack),
            None => self.gaps.push(GapAcks {
                seq,
                gap: gap.clone(),
                acknowledged: false,
                open: vec![ack],
            }),
        }
    }

    /// Acknowledges lines.
    pub(super) fn acknowledge(&mut self, lines: Range<u64>) {
        if self.open.is_empty() && self.acknowledged.is_empty() {
            return;
        }
        self.acknowledged.insert(lines);
        let acknowledged = &self.acknowledged;
        for (_, ack) in self.open.extract_if(.., |(lines, _)| acknowledged.covers(lines)) {
            ack.ack();
        }
    }

    /// Acknowledges a gap that was reported at `seq`: at the gap's own start, or after those of
    /// its lines that arrived.
    pub(super) fn acknowledge_gap(&mut self, seq: u64, gap: &Gap) {
        let found = self.gaps.iter_mut().find(|recorded| {
            let within = recorded.seq..=recorded.seq + recorded.gap.lines;
            recorded.gap == *gap && within.contains(&seq)
        });
        if let Some(recorded) = found {
            recorded.acknowledged = true;
            recorded.open.drain(..).for_each(Ack::ack);
        }
    }

    /// Nacks the deliveries of exactly these lines. Returns whether there were any.
    pub(super) fn nack(&mut self, lines: &Range<u64>) -> bool {
        system::probe!("reassembly: batches are returned at the memory limit");
        let before = self.open.len();
        self.open.retain(|(open, _)| open != lines);
        self.open.len() < before
    }

    /// Returns whether deliveries are waiting.
    pub(super) fn are_open(&self) -> bool {
        !self.open.is_empty() || self.gaps.iter().any(|gap| !gap.open.is_empty())
    }
}
