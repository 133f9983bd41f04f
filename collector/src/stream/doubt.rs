//! Starts a new stream where the checkpoint proves too little: it may be older than what the bus
//! has, or its line is not where it was.
//!
//! Sequence numbers above the checkpoint may name other lines, so that they are not used again. The
//! new stream begins with what is not proved: that no line is missing, and that none is repeated.

use bus::{Gap, GapReason, StreamMetadata, Timestamp};

use super::{Stream, metadata::new_stream_id};
use crate::{
    anchor::ResumePoint,
    publish::{checkpoint::StreamStart, entry::OutboxEntry},
};

/// What is doubtful until the resume point is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// Nothing: if the resume point is not found, lines are missing.
    None,
    /// The position: if the resume point is not found, lines may be missing or repeated.
    Position,
    /// The checkpoint: sequence numbers above it may be used, whether or not it is found.
    Checkpoint,
}

impl Stream {
    /// Reading starts at a position that may be wrong.
    pub fn doubt_position(&mut self) {
        if self.doubt == Doubt::None {
            self.doubt = Doubt::Position;
        }
    }

    /// Gives up the position at which reading resumed: other lines follow it than those that were read
    /// there. Lines without a number are dropped, because they are read again.
    pub fn give_up_position(&mut self) {
        self.unmatched = None;
        self.lines.start_response(None);
        self.doubt_position();
    }

    /// The resume point was found.
    pub(super) fn prove_position(&mut self) {
        self.is_position_proved = true;
        if self.doubt == Doubt::Position {
            self.doubt = Doubt::None;
        }
    }

    /// Starts a new stream before the next line, whose time is `next`, if there is a doubt.
    pub(super) fn settle_doubt(&mut self, next: Option<Timestamp>) {
        if self.doubt == Doubt::None {
            return;
        }
        system::probe!("resume: a doubtful checkpoint");
        let last = self.confirmed.filter(|_| self.is_position_proved);
        let from = self.confirmed.map(|confirmed| confirmed.anchor.timestamp());
        let from = from.filter(|from| from.0 != i64::MIN);
        tracing::warn!(stream = %self.id(), is_proved = last.is_some(), "checkpoint not proved, starting a new stream");
        self.doubt = Doubt::None;
        self.start_epoch(StreamStart {
            after: last,
            may_repeat: true,
        });
        let gap = |reason, to| Gap {
            lines: 0,
            reason,
            from,
            to,
        };
        if last.is_none() {
            self.push_gap(0, gap(GapReason::Suspected, next));
        }
        // The last notice: once the bus has it, the checkpoint is no longer doubtful.
        self.push_gap(0, gap(GapReason::MayRepeat, None));
    }

    /// Starts a new stream with the next line, whose time is `next`: the log no longer contains the
    /// position where reading stopped. `may_repeat`: what is left of it can contain lines that were
    /// read after the position.
    pub fn restart_after_absence(&mut self, next: Option<Timestamp>, may_repeat: bool) {
        if self.reserved_seq > self.next_seq {
            // What was sent can be read again as well: nothing says that it is lost.
            self.doubt_position();
        }
        if self.doubt != Doubt::None || self.has_no_lines() {
            self.record_gap(GapReason::Suspected, next);
        } else {
            self.restart_stream(GapReason::Suspected, next, may_repeat);
        }
        self.lines.start_response(None);
    }

    /// Records that lines are missing, or may be, before the next one, whose time is `next`. The
    /// stream continues.
    pub fn record_gap_before_next(&mut self, reason: GapReason, next: Option<Timestamp>) {
        self.flush_all();
        self.record_gap(reason, next);
        self.next_seq = self.reserved_seq;
        self.lines.start_response(None);
    }

    /// Starts a new stream of the instance.
    pub(super) fn start_epoch(&mut self, start: StreamStart) {
        // The parts come from a valid id.
        let Ok(stream) = new_stream_id(&self.key) else { return };
        let metadata = StreamMetadata {
            stream,
            ..StreamMetadata::clone(&self.metadata)
        };
        self.metadata = metadata.into();
        self.outbox.push(OutboxEntry::Start(self.metadata.clone(), start));
        self.confirmed = start.after.map(|after| ResumePoint { seq_end: 0, ..after });
        (self.next_seq, self.reserved_seq, self.unconfirmed) = (0, 0, None);
        (self.jump_recorded_at, self.opening) = (None, None);
    }
}
