//! Gaps in the files: lines before the next one that are missing, or may be.

use bus::{Fd, GapReason, Timestamp};
use system::clock::steady;

use super::FileFollower;
use crate::{
    files::{
        assemble::LineAssembler,
        reading::ReadState,
        tail::{Opened, Tail},
    },
    stream::Stream,
};

/// Data before the next line that cannot be read.
#[derive(Clone, Copy, Debug)]
pub(super) enum PendingGap {
    /// The position where reading stopped is gone: new streams start.
    PositionGone {
        /// Lines of standard output after it were read.
        out_read: bool,
        /// Lines of standard error after it were read.
        err_read: bool,
    },
    /// It may be missing; nothing proves it. The streams continue.
    Suspected,
    /// A file cannot be read to its end. The streams continue.
    Unreadable,
}

impl FileFollower {
    /// Returns whether the lines after the stored position are not those that were read there.
    pub(super) fn is_position_wrong(&self, reading: &ReadState) -> bool {
        let is_at_end = reading.is_idle && reading.tail.is_at_current();
        let is_wrong = |stream: &Stream| stream.is_mismatched() || is_at_end && stream.is_searching();
        is_wrong(&self.stdout) || is_wrong(&self.stderr)
    }

    /// Reads from the stored position again, in new streams: files of which lines were read are gone,
    /// and with them what else they contained, of either output.
    pub(super) fn read_again(&mut self, reading: &mut ReadState) {
        tracing::warn!(stream = %self.stdout.id(), "log does not continue at the stored position, reading it again from there");
        self.stdout.give_up_position();
        self.stderr.give_up_position();
        self.assembler = LineAssembler::default();
        self.gap = Some(PendingGap::PositionGone {
            out_read: true,
            err_read: true,
        });
        let position = self.checkpointer.position(&self.stdout);
        let mut tail = Tail::new(reading.tail.dir().to_owned(), reading.tail.number());
        let opened = tail.open(position.as_ref(), steady());
        if matches!(opened, Ok(Opened::Found | Opened::PositionGone)) {
            reading.tail = tail;
        }
        reading.wake();
    }

    /// Lines before those that are read next are or may be missing.
    pub(super) fn interrupt(&mut self, gap: PendingGap, reading: &mut ReadState) {
        self.assembler.close();
        self.flush_frames(&mut reading.tail);
        self.gap = self.gap.or(Some(gap));
    }

    /// Records the gap before the next line, whose time is `next`, if there is one. Of an excluded pod
    /// nothing is recorded.
    pub(super) fn record_pending_gap(&mut self, next: Option<Timestamp>) {
        if let Some(gap) = self.gap.take().filter(|_| !self.is_excluded) {
            self.record_gap(gap, next);
            self.checkpointer.interrupted();
        }
    }

    /// Records the gap behind the last line that there is. No file shows where the streams go on: for
    /// those that start anew, that is the stored position.
    pub(super) fn record_gap_at_end(&mut self) {
        if self.gap.is_some() {
            self.record_pending_gap(Some(Timestamp::now()));
            self.checkpointer.restarted(&self.stdout, &self.stderr);
        }
    }

    /// Records a gap in both streams: the lines can have been of either output.
    pub(super) fn record_gap(&mut self, gap: PendingGap, next: Option<Timestamp>) {
        self.uses_stderr = true;
        for (fd, stream) in [(Fd::Err, &mut self.stderr), (Fd::Out, &mut self.stdout)] {
            match gap {
                PendingGap::PositionGone { out_read, err_read } => {
                    let was_read = if fd == Fd::Out { out_read } else { err_read };
                    stream.restart_after_absence(next, was_read);
                }
                PendingGap::Suspected => stream.record_gap_before_next(GapReason::Suspected, next),
                PendingGap::Unreadable => {
                    let next = next.unwrap_or_else(Timestamp::now);
                    stream.record_gap_before_next(GapReason::Rotated, Some(next));
                }
            }
        }
    }
}
