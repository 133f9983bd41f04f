//! Decides when the file checkpoint of a container advances.

use super::{assemble::LineAssembler, tail::Tail};
use crate::{
    publish::{
        checkpoint::CheckpointStore,
        file_checkpoint::{FileCheckpoint, FilePosition, LineCount},
    },
    stream::Stream,
};

/// Upper bound for what is read again after a restart, apart from open lines and unconfirmed data.
const CHECKPOINT_INTERVAL_BYTES: u64 = 1 << 20;

/// Where reading resumes.
pub struct ResumePosition {
    /// The position.
    pub position: FilePosition,
    /// Lines of standard output after it that were read.
    pub out_lines: u64,
    /// Lines of standard error after it that were read.
    pub err_lines: u64,
}

/// Holds the next file checkpoint until the bus has all lines before it.
pub struct FileCheckpointer {
    checkpoints: CheckpointStore,
    /// The next line is the first of its file and follows a gap or nothing.
    starts_new_file: bool,
    next: Option<FileCheckpoint>,
    /// Bytes read since the last proposed checkpoint.
    bytes: u64,
}

impl FileCheckpointer {
    /// Creates the checkpointer of an instance of which nothing was read.
    pub fn new(checkpoints: CheckpointStore) -> Self {
        Self {
            checkpoints,
            starts_new_file: true,
            next: None,
            bytes: 0,
        }
    }

    /// Returns the stored position if both streams can resume from it, and the numbers of lines that
    /// they have read after it.
    pub fn load(&self, out: &Stream, err: &Stream) -> Option<ResumePosition> {
        let stored = self.checkpoints.file_checkpoint(out.key())?;
        Some(ResumePosition {
            out_lines: out.lines_since(&stored.out)?,
            err_lines: err.lines_since(&stored.err)?,
            position: stored.position,
        })
    }

    /// Returns the stored position, whether or not the streams can resume from it.
    pub fn position(&self, out: &Stream) -> Option<FilePosition> {
        Some(self.checkpoints.file_checkpoint(out.key())?.position)
    }

    /// Reading resumes where it stopped.
    ///
    /// The stream of an output without lines is not stored, so that each start has another one. The
    /// stored position counts the lines of the current one from now on.
    pub fn resumed(&mut self, out: &Stream, err: &Stream) {
        self.starts_new_file = false;
        self.count_from_stored(out, err, Stream::has_no_lines);
    }

    /// New streams have started, of which no line was read yet: nothing follows the stored position.
    pub fn restarted(&self, out: &Stream, err: &Stream) {
        self.count_from_stored(out, err, |_| true);
    }

    /// Lets the stored position count the lines of the streams that are chosen, if it counts those of
    /// others.
    fn count_from_stored(&self, out: &Stream, err: &Stream, is_chosen: impl Fn(&Stream) -> bool) {
        let Some(stored) = self.checkpoints.file_checkpoint(out.key()) else {
            return;
        };
        let mut current = stored.clone();
        for (count, stream) in [(&mut current.out, out), (&mut current.err, err)] {
            if is_chosen(stream) && !count.is_of(stream.id()) {
                *count = LineCount::new(stream.id(), stream.next_unread_seq());
            }
        }
        if current != stored {
            self.checkpoints.save_file_checkpoint(out.key(), &current);
        }
    }

    /// Reading continues after a gap.
    pub fn interrupted(&mut self) {
        self.starts_new_file = true;
    }

    /// The stored checkpoint counts lines of a stream that has ended, or lies in an older file;
    /// proposes another one soon.
    pub fn request_soon(&mut self) {
        self.bytes = CHECKPOINT_INTERVAL_BYTES;
    }

    /// Accounts for bytes that are about to be passed to the streams. At the start of a new
    /// sequence of files, proposes the start of the file.
    pub fn record_read(&mut self, bytes: usize, tail: &mut Tail, out: &Stream, err: &Stream) {
        self.bytes += bytes as u64;
        if std::mem::take(&mut self.starts_new_file)
            && let Some(position) = tail.position()
        {
            let position = FilePosition { offset: 0, ..position };
            (self.next, self.bytes) = (Some(file_checkpoint(position, out, err)), 0);
            self.save(out, err);
        }
    }

    /// Proposes the current position if enough was read or `is_last`, and no line is open.
    pub fn propose(&mut self, assembler: &LineAssembler, tail: &mut Tail, out: &Stream, err: &Stream, is_last: bool) {
        let is_due = is_last || self.next.is_none() && self.bytes >= CHECKPOINT_INTERVAL_BYTES;
        if !is_due || assembler.is_open() || out.is_searching() || err.is_searching() {
            return;
        }
        if let Some(position) = tail.position() {
            self.next = Some(file_checkpoint(position, out, err));
            self.bytes = 0;
        }
    }

    /// Stores the proposed checkpoint once the bus has all lines before it.
    pub fn save(&mut self, out: &Stream, err: &Stream) {
        let Some(file_checkpoint) = &self.next else { return };
        if !file_checkpoint.out.is_of(out.id()) || !file_checkpoint.err.is_of(err.id()) {
            // A new stream has started since.
            self.next = None;
            return self.request_soon();
        }
        let has = |stream: &Stream, count: &LineCount| {
            let accepted = stream.accepted().filter(|_| count.is_of(stream.id()));
            accepted.is_some_and(|accepted| accepted >= count.seq)
        };
        if has(out, &file_checkpoint.out) && has(err, &file_checkpoint.err) {
            // The stream checkpoints that it refers to are written first.
            [out, err]
                .into_iter()
                .filter(|stream| !stream.has_no_lines())
                .for_each(Stream::save);
            self.checkpoints.save_file_checkpoint(out.key(), file_checkpoint);
            self.next = None;
        }
    }
}

fn file_checkpoint(position: FilePosition, out: &Stream, err: &Stream) -> FileCheckpoint {
    FileCheckpoint {
        position,
        out: LineCount::new(out.id(), out.next_unread_seq()),
        err: LineCount::new(err.id(), err.next_unread_seq()),
    }
}
