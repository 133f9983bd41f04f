//! The log of one container instance: an append-only in-memory file of timestamped lines that
//! rotates by size.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::{BufMut, Bytes, BytesMut};
use parking_lot::{Mutex, MutexGuard};
use system::clock::Instant;
use tokio::sync::watch;

use super::clock::{LineTime, LogClock};
use super::cri_files::CriLogFiles;
use crate::time::NodeClock;

/// What all logs of the node have in common.
#[derive(Clone)]
pub(crate) struct LogSettings {
    /// Size at which the log that the API serves rotates.
    pub(crate) rotate_bytes: usize,
    pub(crate) clock: NodeClock,
    /// Whether follows stay at the end of a file that is rotated now.
    pub(crate) strand_on_rotation: Arc<AtomicBool>,
}

/// The log of one container instance.
///
/// *Bound*: the current file (the rotation size plus one append), and older files that a reader
/// still holds.
pub(crate) struct ContainerLog {
    settings: LogSettings,
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
    /// Follows that read this file do not notice that it was rotated.
    pub(crate) strands_follows: bool,
}

/// One append: lines with their timestamp prefixes.
#[derive(Clone)]
pub(crate) struct Chunk {
    pub(crate) data: Bytes,
    pub(crate) lines: u32,
    /// Time of the oldest line that starts here, in nanoseconds; `MAX` if there is none.
    pub(crate) oldest: u64,
    /// The first bytes continue the last line of the previous chunk and have no prefix.
    pub(crate) continues: bool,
}

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
    oldest: u64,
    last: u64,
}

/// Where an append went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Appended {
    /// Number of lines that the log had before.
    pub(crate) lines_before: u64,
    /// Time of the last line in nanoseconds since the Unix epoch; 0 without a line.
    pub(crate) last: u64,
    /// Number of rotations of the log that the API serves before the append.
    pub(crate) rotations: u64,
    /// Number of log files on disk before the one that has the append.
    pub(crate) files_before: Option<u64>,
}

impl ContainerLog {
    /// Creates an empty log.
    pub(crate) fn new(settings: LogSettings) -> Self {
        let writer = Writer {
            clock: LogClock::new(settings.clock.clone()),
            buffer: BytesMut::new(),
            open_line: false,
            to_stderr: false,
            stderr_lines: Vec::new(),
        };
        Self {
            settings,
            writer: Mutex::new(writer),
            current: Mutex::default(),
            progress: watch::Sender::new(None),
            counts: Arc::default(),
            files: None,
        }
    }

    /// Creates an empty log that is also written to disk.
    pub(crate) fn on_disk(settings: LogSettings, files: Arc<CriLogFiles>) -> Self {
        Self {
            files: Some(files),
            ..Self::new(settings)
        }
    }

    /// Returns the log files on disk, if there are any.
    pub(crate) fn files(&self) -> Option<&Arc<CriLogFiles>> {
        self.files.as_ref()
    }

    /// Appends what `fill` writes and wakes the readers.
    ///
    /// Each line gets its timestamp when it is written. Keep one append below [`APPEND_BYTES`]:
    /// readers receive it in one piece.
    pub(crate) fn append(&self, fill: impl FnOnce(&mut Append<'_>)) -> Appended {
        let mut writer = self.writer.lock();
        let continues = writer.open_line.then_some(writer.to_stderr);
        let mut append = Append {
            writer: &mut writer,
            lines: 0,
            content_bytes: 0,
            oldest: u64::MAX,
            last: 0,
        };
        fill(&mut append);
        let Append {
            lines,
            content_bytes,
            oldest,
            last,
            ..
        } = append;
        let mut appended = Appended {
            lines_before: self.counts.lines.fetch_add(u64::from(lines), Ordering::Relaxed),
            last,
            rotations: self.counts.rotations.load(Ordering::Relaxed),
            files_before: None,
        };
        let data = writer.buffer.split().freeze();
        if data.is_empty() {
            return appended;
        }
        self.counts.bytes.fetch_add(content_bytes, Ordering::Relaxed);
        let stderr_lines = std::mem::take(&mut writer.stderr_lines);
        // Under the writer's lock, so that lines on disk have the same order.
        let files = self.files.as_ref();
        appended.files_before = files.map(|files| files.write(&data, continues, &stderr_lines));
        self.push(Chunk {
            data,
            lines,
            oldest,
            continues: continues.is_some(),
        });
        drop(writer);
        self.progress.send_modify(|_| ());
        appended
    }

    /// Marks the log as complete: its container exited.
    pub(crate) fn finish(&self) {
        if let Some(files) = &self.files {
            files.finish();
        }
        self.progress.send_modify(|ended| {
            ended.get_or_insert_with(system::clock::steady);
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
            content.bytes >= self.settings.rotate_bytes
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
        let mut content = rotated.content.lock();
        content.sealed = true;
        content.strands_follows = self.settings.strand_on_rotation.load(Ordering::Relaxed);
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
        self.line_at(LineTime::Now, write);
    }

    /// Writes one line that was printed at another time.
    pub(crate) fn line_at(&mut self, time: LineTime, write: impl FnOnce(&mut BytesMut)) {
        self.unterminated(time, write);
        self.writer.buffer.put_u8(b'\n');
        (self.writer.open_line, self.writer.to_stderr) = (false, false);
    }

    /// Makes the next line go to standard error.
    pub(crate) fn stderr(&mut self) {
        self.writer.to_stderr = true;
    }

    /// Writes text without a newline. Text written next continues the same line.
    pub(crate) fn unterminated(&mut self, time: LineTime, write: impl FnOnce(&mut BytesMut)) {
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
        self.last = clock.stamp(time, *to_stderr);
        if !*open_line {
            clock.write_prefix(self.last, buffer);
            if *to_stderr {
                stderr_lines.push(self.lines);
            }
            self.lines += 1;
            self.oldest = self.oldest.min(self.last);
        }
        *open_line = true;
        let before = buffer.len();
        write(buffer);
        self.content_bytes += (buffer.len() - before) as u64;
    }

    /// Returns the number of lines that started in this append so far.
    pub(crate) fn lines(&self) -> u32 {
        self.lines
    }

    /// Returns the time of the last line in nanoseconds since the Unix epoch.
    pub(crate) fn last(&self) -> u64 {
        self.last
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
