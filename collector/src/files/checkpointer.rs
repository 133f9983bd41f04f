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

    /// Returns the stored checkpoint if both streams can resume from it.
    pub fn load(&self, out: &Stream, err: &Stream) -> Option<FileCheckpoint> {
        let file_checkpoint = self.checkpoints.file_checkpoint(out.key());
        file_checkpoint
            .filter(|file_checkpoint| continues(&file_checkpoint.out, out) && continues(&file_checkpoint.err, err))
    }

    /// Reading resumes where it stopped.
    pub fn resumed(&mut self) {
        self.starts_new_file = false;
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

/// Returns whether a stream can resume from a checkpoint with this line count.
fn continues(count: &LineCount, stream: &Stream) -> bool {
    let is_same_stream = count.is_of(stream.id()) || stream.has_no_lines() && count.seq == 0;
    is_same_stream && stream.next_unread_seq() >= count.seq
}
