//! One container instance's log: an append-only file of prefixed lines that rotates by size.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bytes::{BufMut, Bytes, BytesMut};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::watch;

use super::clock::Clock;
use super::cri_files::FileLog;

/// The log of one container instance.
///
/// *Bound*: the current file, at most the size at which it rotates and one append, and those older files that a reader still holds.
pub(crate) struct Log {
    rotate_bytes: usize,
    writer: Mutex<Writer>,
    current: Mutex<Arc<File>>,
    /// Changes with each append and at the end; holds when the container exited.
    progress: watch::Sender<Option<Instant>>,
    counts: Arc<Counts>,
    /// The same as the runtime keeps it on disk, where that is wanted.
    files: Option<Arc<FileLog>>,
}

/// What was written, for those who compare.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) lines: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) rotations: AtomicU64,
}

/// One file between two rotations.
#[derive(Default)]
pub(crate) struct File {
    content: Mutex<Content>,
}

/// What is in a file.
#[derive(Default)]
pub(crate) struct Content {
    /// Whole appends, in order.
    pub(crate) chunks: Vec<Chunk>,
    bytes: usize,
    /// Rotated away: nothing more comes into this file.
    pub(crate) sealed: bool,
}

/// One append: lines with their prefixes.
#[derive(Clone)]
pub(crate) struct Chunk {
    pub(crate) data: Bytes,
    pub(crate) lines: u32,
    /// Its first bytes go on the line before them, which had no newline: they have no prefix.
    pub(crate) continues: bool,
}

#[derive(Default)]
struct Writer {
    clock: Clock,
    buffer: BytesMut,
    open_line: bool,
    /// The open line, or the next where none is open, goes to standard error.
    to_stderr: bool,
    /// The lines of the append that begin in it and go to standard error.
    stderr_lines: Vec<u32>,
}

/// Lines being written; all of them become visible together.
pub(crate) struct Append<'a> {
    writer: &'a mut Writer,
    lines: u32,
    content_bytes: u64,
    last: u64,
}

impl Log {
    /// An empty one, whose file is rotated away once it has so many bytes.
    pub(crate) fn new(rotate_bytes: usize) -> Self {
        Self {
            rotate_bytes,
            writer: Mutex::default(),
            current: Mutex::default(),
            progress: watch::Sender::new(None),
            counts: Arc::default(),
            files: None,
        }
    }

    /// The same, also kept on disk.
    pub(crate) fn on_disk(rotate_bytes: usize, files: Arc<FileLog>) -> Self {
        Self {
            files: Some(files),
            ..Self::new(rotate_bytes)
        }
    }

    /// Returns how it is kept on disk, if it is.
    pub(crate) fn files(&self) -> Option<&Arc<FileLog>> {
        self.files.as_ref()
    }

    /// Appends what `fill` writes and wakes the readers. Returns the last line's time in nanoseconds since 1970.
    ///
    /// Each line's time is read when it is written. Keep one append below [`APPEND_BYTES`]: it is what a reader gets
    /// in one piece.
    pub(crate) fn append(&self, fill: impl FnOnce(&mut Append<'_>)) -> u64 {
        let mut writer = self.writer.lock();
        let continues = writer.open_line.then_some(writer.to_stderr);
        let mut append = Append {
            writer: &mut writer,
            lines: 0,
            content_bytes: 0,
            last: 0,
        };
        fill(&mut append);
        let (lines, content_bytes, last) = (append.lines, append.content_bytes, append.last);
        let data = writer.buffer.split().freeze();
        if data.is_empty() {
            return last;
        }
        self.counts.lines.fetch_add(u64::from(lines), Ordering::Relaxed);
        self.counts.bytes.fetch_add(content_bytes, Ordering::Relaxed);
        let stderr_lines = std::mem::take(&mut writer.stderr_lines);
        if let Some(files) = &self.files {
            // Under the lock of the writer: on disk, lines have the same order.
            files.write(&data, continues, &stderr_lines);
        }
        let continues = continues.is_some();
        self.push(Chunk { data, lines, continues });
        drop(writer);
        self.progress.send_modify(|_| ());
        last
    }

    /// Marks the log as complete: its container exited.
    pub(crate) fn finish(&self) {
        if let Some(files) = &self.files {
            files.finish();
        }
        self.progress.send_modify(|ended| {
            ended.get_or_insert_with(Instant::now);
        });
    }

    /// Returns what tells a reader that there is more, or that the container exited and when.
    pub(crate) fn progress(&self) -> watch::Receiver<Option<Instant>> {
        self.progress.subscribe()
    }

    /// Returns the file that is being written now.
    pub(crate) fn current(&self) -> Arc<File> {
        Arc::clone(&self.current.lock())
    }

    /// Returns the counters; they outlive the log.
    pub(crate) fn counts(&self) -> Arc<Counts> {
        Arc::clone(&self.counts)
    }

    fn push(&self, chunk: Chunk) {
        let mut current = self.current.lock();
        let full = {
            let mut content = current.content.lock();
            content.bytes += chunk.data.len();
            content.chunks.push(chunk);
            content.bytes >= self.rotate_bytes
        };
        if full {
            self.seal(&mut current);
        }
    }

    /// Rotates the file away now, as the kubelet does; an empty one stays.
    pub(crate) fn rotate(&self) {
        let writer = self.writer.lock();
        let mut current = self.current.lock();
        if current.content.lock().bytes > 0 {
            self.seal(&mut current);
        }
        drop((current, writer));
        self.progress.send_modify(|_| ());
    }

    fn seal(&self, current: &mut Arc<File>) {
        let rotated = std::mem::take(current);
        rotated.content.lock().sealed = true;
        self.counts.rotations.fetch_add(1, Ordering::Relaxed);
    }
}

impl File {
    /// Locks the file for a short look.
    pub(crate) fn content(&self) -> MutexGuard<'_, Content> {
        self.content.lock()
    }
}

impl Append<'_> {
    /// Writes one line; `write` adds its content, which must not contain a newline.
    pub(crate) fn line(&mut self, write: impl FnOnce(&mut BytesMut)) {
        self.unterminated(None, write);
        self.end_line();
    }

    /// Sends the next line to standard error.
    pub(crate) fn stderr(&mut self) {
        self.writer.to_stderr = true;
    }

    fn end_line(&mut self) {
        self.writer.buffer.put_u8(b'\n');
        (self.writer.open_line, self.writer.to_stderr) = (false, false);
    }

    /// Writes one line as if it had been written at `nanos`; not earlier than the line before.
    pub(crate) fn line_at(&mut self, nanos: u64, write: impl FnOnce(&mut BytesMut)) {
        self.unterminated(Some(nanos), write);
        self.end_line();
    }

    /// Writes a line without its newline: a container's last words. What is written next goes on the same line.
    pub(crate) fn unterminated(&mut self, at: Option<u64>, write: impl FnOnce(&mut BytesMut)) {
        let Writer {
            clock,
            buffer,
            open_line,
            to_stderr,
            stderr_lines,
        } = &mut *self.writer;
        if buffer.capacity() - buffer.len() < ROOM_BYTES {
            buffer.reserve(APPEND_BYTES * 2);
        }
        self.last = match at {
            Some(nanos) => clock.at(nanos),
            None => clock.read(),
        };
        if !*open_line {
            clock.stamp(self.last, buffer);
            if *to_stderr {
                stderr_lines.push(self.lines);
            }
            self.lines += 1;
        }
        *open_line = true;
        let before = buffer.len();
        write(buffer);
        self.content_bytes += (buffer.len() - before) as u64;
    }

    /// Returns the bytes of this append so far.
    pub(crate) fn len(&self) -> usize {
        self.writer.buffer.len()
    }
}

/// The most that one append, and so one HTTP chunk, should hold.
pub(crate) const APPEND_BYTES: usize = 32 << 10;

/// Room for a usual line: below it the buffer is replaced, not grown line by line.
const ROOM_BYTES: usize = 512;
