//! The log of one container instance: an append-only in-memory file of timestamped lines that
//! rotates by size.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bytes::{BufMut, Bytes, BytesMut};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::watch;

use super::clock::LogClock;
use super::cri_files::CriLogFiles;

/// The log of one container instance.
///
/// *Bound*: the current file (the rotation size plus one append), and older files that a reader
/// still holds.
pub(crate) struct ContainerLog {
    rotate_bytes: usize,
    writer: Mutex<Writer>,
    current: Mutex<Arc<LogFile>>,
    /// Changes with each append and at the exit; contains the time of the exit.
    progress: watch::Sender<Option<Instant>>,
    counts: Arc<LogTotals>,
    /// The same log on disk, if the node writes log files.
    files: Option<Arc<CriLogFiles>>,
}

/// Totals of what was written, for tests.
#[derive(Debug, Default)]
pub(crate) struct LogTotals {
    pub(crate) lines: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) rotations: AtomicU64,
}

/// The content between two rotations.
#[derive(Default)]
pub(crate) struct LogFile {
    content: Mutex<FileContent>,
}

/// FileContent of a log file.
#[derive(Default)]
pub(crate) struct FileContent {
    /// Whole appends, in order.
    pub(crate) chunks: Vec<Chunk>,
    bytes: usize,
    /// Rotated: nothing is appended any more.
    pub(crate) sealed: bool,
}

/// One append: lines with their timestamp prefixes.
#[derive(Clone)]
pub(crate) struct Chunk {
    pub(crate) data: Bytes,
    pub(crate) lines: u32,
    /// The first bytes continue the last line of the previous chunk and have no prefix.
    pub(crate) continues: bool,
}

#[derive(Default)]
struct Writer {
    clock: LogClock,
    buffer: BytesMut,
    open_line: bool,
    /// Whether the unterminated line, or else the next line, goes to standard error.
    to_stderr: bool,
    /// Indexes of the lines that start in this append and go to standard error.
    stderr_lines: Vec<u32>,
}

/// An append in progress; its lines become visible together.
pub(crate) struct Append<'a> {
    writer: &'a mut Writer,
    lines: u32,
    content_bytes: u64,
    last: u64,
}

impl ContainerLog {
    /// Creates an empty log that rotates at `rotate_bytes`.
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

    /// Creates an empty log that is also written to disk.
    pub(crate) fn on_disk(rotate_bytes: usize, files: Arc<CriLogFiles>) -> Self {
        Self {
            files: Some(files),
            ..Self::new(rotate_bytes)
        }
    }

    /// Returns the log files on disk, if there are any.
    pub(crate) fn files(&self) -> Option<&Arc<CriLogFiles>> {
        self.files.as_ref()
    }

    /// Appends what `fill` writes and wakes the readers. Returns the last line's time in
    /// nanoseconds since the Unix epoch.
    ///
    /// Each line gets its timestamp when it is written. Keep one append below [`APPEND_BYTES`]:
    /// readers receive it in one piece.
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
            // Under the writer's lock, so that lines on disk have the same order.
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

    /// Returns a receiver that wakes on appends and contains the time of the container's exit.
    pub(crate) fn progress(&self) -> watch::Receiver<Option<Instant>> {
        self.progress.subscribe()
    }

    /// Returns the current file.
    pub(crate) fn current(&self) -> Arc<LogFile> {
        Arc::clone(&self.current.lock())
    }

    /// Returns the totals; they outlive the log.
    pub(crate) fn counts(&self) -> Arc<LogTotals> {
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

    /// Rotates the log now, as the kubelet does; an empty file stays.
    pub(crate) fn rotate(&self) {
        let writer = self.writer.lock();
        let mut current = self.current.lock();
        if current.content.lock().bytes > 0 {
            self.seal(&mut current);
        }
        drop((current, writer));
        self.progress.send_modify(|_| ());
    }

    fn seal(&self, current: &mut Arc<LogFile>) {
        let rotated = std::mem::take(current);
        rotated.content.lock().sealed = true;
        self.counts.rotations.fetch_add(1, Ordering::Relaxed);
    }
}

impl LogFile {
    /// Locks the content; hold the guard briefly.
    pub(crate) fn content(&self) -> MutexGuard<'_, FileContent> {
        self.content.lock()
    }
}

impl Append<'_> {
    /// Writes one line; `write` appends its content, which must not contain a newline.
    pub(crate) fn line(&mut self, write: impl FnOnce(&mut BytesMut)) {
        self.unterminated(None, write);
        self.end_line();
    }

    /// Makes the next line go to standard error.
    pub(crate) fn stderr(&mut self) {
        self.writer.to_stderr = true;
    }

    fn end_line(&mut self) {
        self.writer.buffer.put_u8(b'\n');
        (self.writer.open_line, self.writer.to_stderr) = (false, false);
    }

    /// Writes one line with the time `nanos`, or the time of the line before if that is later.
    pub(crate) fn line_at(&mut self, nanos: u64, write: impl FnOnce(&mut BytesMut)) {
        self.unterminated(Some(nanos), write);
        self.end_line();
    }

    /// Writes text without a newline. Text written next continues the same line.
    pub(crate) fn unterminated(&mut self, at: Option<u64>, write: impl FnOnce(&mut BytesMut)) {
        let Writer {
            clock,
            buffer,
            open_line,
            to_stderr,
            stderr_lines,
        } = &mut *self.writer;
        if buffer.capacity() - buffer.len() < MIN_FREE_BYTES {
            buffer.reserve(APPEND_BYTES * 2);
        }
        self.last = match at {
            Some(nanos) => clock.advance_to(nanos),
            None => clock.read(),
        };
        if !*open_line {
            clock.write_prefix(self.last, buffer);
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

    /// Returns the size of this append so far.
    pub(crate) fn len(&self) -> usize {
        self.writer.buffer.len()
    }
}

/// Maximum size of one append and so of one HTTP chunk.
pub(crate) const APPEND_BYTES: usize = 32 << 10;

/// Free space for a typical line; below it the buffer is replaced instead of grown line by line.
const MIN_FREE_BYTES: usize = 512;
