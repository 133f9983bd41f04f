//! When the place to read from again moves on.

use super::{assemble::Joiner, tail::Tail};
use crate::{
    publish::{
        checkpoint::Checkpoints,
        file_checkpoint::{Base, Count, Place},
    },
    stream::Stream,
};

/// So much is read again after a restart at most, but for lines that were open and what the bus did not have.
const BASE_BYTES: u64 = 1 << 20;

/// The place to read from again: the one on record, and the next, which waits until the bus has all lines before it.
pub struct Bases {
    checkpoints: Checkpoints,
    /// The first line to come is the first of its file, and joins nothing that was had.
    begins: bool,
    next: Option<Base>,
    /// Read since the last was noted.
    bytes: u64,
}

impl Bases {
    /// Of an instance of which nothing was read.
    pub fn new(checkpoints: Checkpoints) -> Self {
        Self {
            checkpoints,
            begins: true,
            next: None,
            bytes: 0,
        }
    }

    /// The place on record, where both streams can go on from it.
    pub fn on_record(&self, out: &Stream, err: &Stream) -> Option<Base> {
        let base = self.checkpoints.base(out.key());
        base.filter(|base| joins(&base.out, out) && joins(&base.err, err))
    }

    /// What is read next joins what was had.
    pub fn joined(&mut self) {
        self.begins = false;
    }

    /// What is read next joins nothing that was had.
    pub fn parted(&mut self) {
        self.begins = true;
    }

    /// The place on record counts lines of a stream that was ended: another is wanted soon.
    pub fn outdated(&mut self) {
        self.bytes = BASE_BYTES;
    }

    /// So many bytes were read, and their lines are about to be handed over. Notes the beginning of the file where they begin anew: from there they can be
    /// read again, whatever happens.
    pub fn hand_over(&mut self, bytes: usize, tail: &mut Tail, out: &Stream, err: &Stream) {
        self.bytes += bytes as u64;
        if std::mem::take(&mut self.begins)
            && let Some(place) = tail.place()
        {
            let place = Place { offset: 0, ..place };
            (self.next, self.bytes) = (Some(base(place, out, err)), 0);
            self.save(out, err);
        }
    }

    /// Notes the place that was reached, where there was read enough since the last, or it `is_last`, and no line is open.
    pub fn note(&mut self, joiner: &Joiner, tail: &mut Tail, out: &Stream, err: &Stream, is_last: bool) {
        let is_due = is_last || self.next.is_none() && self.bytes >= BASE_BYTES;
        if !is_due || joiner.is_open() || out.is_seeking() || err.is_seeking() {
            return;
        }
        if let Some(place) = tail.place() {
            self.next = Some(base(place, out, err));
            self.bytes = 0;
        }
    }

    /// Writes the noted place, once the bus has all lines before it.
    pub fn save(&mut self, out: &Stream, err: &Stream) {
        let Some(base) = &self.next else { return };
        let has = |stream: &Stream, count: &Count| {
            let accepted = stream.accepted().filter(|_| count.is_of(stream.id()));
            accepted.is_some_and(|accepted| accepted >= count.seq)
        };
        if has(out, &base.out) && has(err, &base.err) {
            // What the base counts on must be on record before it.
            [out, err]
                .into_iter()
                .filter(|stream| !stream.is_blank())
                .for_each(Stream::save);
            self.checkpoints.save_base(out.key(), base);
            self.next = None;
        }
    }
}

fn base(place: Place, out: &Stream, err: &Stream) -> Base {
    Base {
        place,
        out: Count::new(out.id(), out.end()),
        err: Count::new(err.id(), err.end()),
    }
}

/// Whether a stream can go on from a base with this count of its lines.
fn joins(count: &Count, stream: &Stream) -> bool {
    let is_ours = count.is_of(stream.id()) || stream.is_blank() && count.seq == 0;
    is_ours && stream.end() >= count.seq
}
