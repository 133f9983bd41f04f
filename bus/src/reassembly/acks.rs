//! Which deliveries of a stream wait for whose lines.

use std::ops::Range;

use super::Ranges;
use crate::{Ack, batch::Gap};

/// The open deliveries of one stream. Empty, and free of cost, for a reader that settles nothing.
#[derive(Debug, Default)]
pub(super) struct Acks {
    accepted: Ranges,
    waiting: Vec<(Range<u64>, Ack)>,
    losses: Vec<LossAck>,
}

#[derive(Debug)]
struct LossAck {
    seq: u64,
    loss: Gap,
    told: bool,
    waiting: Vec<Ack>,
}

impl Acks {
    /// A delivery of these lines: accepted when all of them are, which may be now.
    pub(super) fn wait(&mut self, lines: Range<u64>, ack: Option<Ack>) {
        let Some(ack) = ack else { return };
        if self.accepted.covers(&lines) {
            ack.accept();
        } else {
            self.waiting.push((lines, ack));
        }
    }

    /// A delivery of this loss: accepted when it has been told, which may be now.
    pub(super) fn wait_loss(&mut self, seq: u64, loss: &Gap, ack: Option<Ack>) {
        let Some(ack) = ack else { return };
        match self
            .losses
            .iter_mut()
            .find(|known| known.seq == seq && known.loss == *loss)
        {
            Some(known) if known.told => ack.accept(),
            Some(known) => known.waiting.push(ack),
            None => self.losses.push(LossAck {
                seq,
                loss: loss.clone(),
                told: false,
                waiting: vec![ack],
            }),
        }
    }

    pub(super) fn accept(&mut self, lines: Range<u64>) {
        if self.waiting.is_empty() && self.accepted.is_empty() {
            return;
        }
        self.accepted.insert(lines);
        let accepted = &self.accepted;
        for (_, ack) in self.waiting.extract_if(.., |(lines, _)| accepted.covers(lines)) {
            ack.accept();
        }
    }

    /// `seq` is where the reader was told: at the loss's own seq, or behind what of it had arrived.
    pub(super) fn accept_loss(&mut self, seq: u64, loss: &Gap) {
        let found = self.losses.iter_mut().find(|known| {
            let within = known.seq..=known.seq + known.loss.lines;
            known.loss == *loss && within.contains(&seq)
        });
        if let Some(known) = found {
            known.told = true;
            known.waiting.drain(..).for_each(Ack::accept);
        }
    }

    /// Gives back the deliveries of exactly these lines. False where there are none.
    pub(super) fn give_back(&mut self, lines: &Range<u64>) -> bool {
        let before = self.waiting.len();
        self.waiting.retain(|(waiting, _)| waiting != lines);
        self.waiting.len() < before
    }

    pub(super) fn are_open(&self) -> bool {
        !self.waiting.is_empty() || self.losses.iter().any(|loss| !loss.waiting.is_empty())
    }
}
