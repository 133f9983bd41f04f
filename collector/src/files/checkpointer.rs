//! When the place to read from again moves on.

use super::{assemble::LineAssembler, tail::Tail};
use crate::{
    publish::{
        checkpoint::CheckpointStore,
        file_checkpoint::{FileCheckpoint, FilePosition, LineCount},
    },
    stream::Stream,
};

/// So much is read again after a restart at most, but for lines that were open and what the bus did not have.
const BASE_BYTES: u64 = 1 << 20;

/// The place to read from again: the one on record, and the next, which waits until the bus has all lines before it.
pub struct FileCheckpointer {
    checkpoints: CheckpointStore,
    /// The first line to come is the first of its file, and joins nothing that was had.
    starts_new_file: bool,
    next: Option<FileCheckpoint>,
    /// Read since the last was noted.
    bytes: u64,
}

impl FileCheckpointer {
    /// Of an instance of which nothing was read.
    pub fn new(checkpoints: CheckpointStore) -> Self {
        Self {
            checkpoints,
            starts_new_file: true,
            next: None,
            bytes: 0,
        }
    }

    /// The place on record, where both streams can go on from it.
    pub fn load(&self, out: &Stream, err: &Stream) -> Option<FileCheckpoint> {
        let file_checkpoint = self.checkpoints.file_checkpoint(out.key());
        file_checkpoint
            .filter(|file_checkpoint| continues(&file_checkpoint.out, out) && continues(&file_checkpoint.err, err))
    }

    /// What is read next joins what was had.
    pub fn resumed(&mut self) {
        self.starts_new_file = false;
    }

    /// What is read next joins nothing that was had.
    pub fn interrupted(&mut self) {
        self.starts_new_file = true;
    }

    /// The place on record counts lines of a stream that was ended: another is wanted soon.
    pub fn request_soon(&mut self) {
        self.bytes = BASE_BYTES;
    }

    /// So many bytes were read, and their lines are about to be handed over. Notes the beginning of the file where they begin anew: from there they can be
    /// read again, whatever happens.
    pub fn note_read(&mut self, bytes: usize, tail: &mut Tail, out: &Stream, err: &Stream) {
        self.bytes += bytes as u64;
        if std::mem::take(&mut self.starts_new_file)
            && let Some(position) = tail.position()
        {
            let position = FilePosition { offset: 0, ..position };
            (self.next, self.bytes) = (Some(file_checkpoint(position, out, err)), 0);
            self.save(out, err);
        }
    }

    /// Notes the place that was reached, where there was read enough since the last, or it `is_last`, and no line is open.
    pub fn propose(&mut self, assembler: &LineAssembler, tail: &mut Tail, out: &Stream, err: &Stream, is_last: bool) {
        let is_due = is_last || self.next.is_none() && self.bytes >= BASE_BYTES;
        if !is_due || assembler.is_open() || out.is_searching() || err.is_searching() {
            return;
        }
        if let Some(position) = tail.position() {
            self.next = Some(file_checkpoint(position, out, err));
            self.bytes = 0;
        }
    }

    /// Writes the noted place, once the bus has all lines before it.
    pub fn save(&mut self, out: &Stream, err: &Stream) {
        let Some(file_checkpoint) = &self.next else { return };
        let has = |stream: &Stream, count: &LineCount| {
            let accepted = stream.accepted().filter(|_| count.is_of(stream.id()));
            accepted.is_some_and(|accepted| accepted >= count.seq)
        };
        if has(out, &file_checkpoint.out) && has(err, &file_checkpoint.err) {
            // What the base counts on must be on record before it.
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

/// Whether a stream can go on from a base with this count of its lines.
fn continues(count: &LineCount, stream: &Stream) -> bool {
    let is_same_instance = count.is_of(stream.id()) || stream.has_no_lines() && count.seq == 0;
    is_same_instance && stream.next_unread_seq() >= count.seq
}
