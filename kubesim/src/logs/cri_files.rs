//! Log files of a container instance in CRI format, written and rotated as container runtime and
//! kubelet do.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};

use bytes::BytesMut;
use parking_lot::Mutex;
use system::files::{self, File, OpenOptions};

use super::clock::{LineTime, LogClock, PREFIX_BYTES};
use super::rotated_files;
use crate::time::{NodeClock, timestamp};

/// The log files of one container instance: `N.log` and its rotated files.
///
/// *Shape*: `<time, trailing zeros trimmed> <stdout|stderr> <P|F> <content>`; a long line is split
/// into entries of [`MAX_ENTRY_BYTES`].
pub(crate) struct CriLogFiles {
    path: PathBuf,
    node: NodeClock,
    state: Mutex<State>,
}

struct State {
    /// `None` after the container exited.
    file: Option<File>,
    partial_lines: [PartialLine; 2],
    clock: LogClock,
    buffer: Vec<u8>,
    /// Number of files before the current one.
    files_before: u64,
    /// Unix second in the name of the last rotated file, and the node's time then.
    rotated: (i64, i64),
}

/// The unterminated line of one output stream.
#[derive(Default)]
struct PartialLine {
    /// Content that is not written to the file yet.
    pending: Vec<u8>,
    /// Its timestamp, in the format of the log API.
    time: Vec<u8>,
}

impl CriLogFiles {
    /// Creates the file and its directory.
    ///
    /// *Errors*: those of the file system.
    pub(crate) fn create(path: PathBuf, node: NodeClock) -> io::Result<Self> {
        if let Some(dir) = path.parent() {
            files::create_dir_all(dir)?;
        }
        let state = State {
            file: Some(open(&path)?),
            partial_lines: Default::default(),
            clock: LogClock::new(node.clone()),
            buffer: Vec::new(),
            files_before: 0,
            rotated: (0, 0),
        };
        Ok(Self {
            path,
            node,
            state: Mutex::new(state),
        })
    }

    /// Writes lines with timestamp prefixes. `continues`: the first bytes continue the unterminated
    /// line, on standard error if true. `stderr_lines`: indexes of the lines starting here that go
    /// to standard error. Returns the number of files before the one that has the lines.
    pub(crate) fn write(&self, data: &[u8], continues: Option<bool>, stderr_lines: &[u32]) -> u64 {
        let mut state = self.state.lock();
        let mut stderr_lines = stderr_lines.iter().copied().peekable();
        let (mut rest, mut continues, mut line) = (data, continues, 0);
        while !rest.is_empty() {
            let newline = memchr::memchr(b'\n', rest);
            let end = newline.unwrap_or(rest.len());
            let (mut text, is_stderr) = (&rest[..end], continues.take());
            let is_stderr = is_stderr.unwrap_or_else(|| {
                let is_stderr = stderr_lines.next_if_eq(&line).is_some();
                line += 1;
                let (time, content) = text.split_at(PREFIX_BYTES.min(text.len()));
                state.begin_line(is_stderr, time);
                text = content;
                is_stderr
            });
            state.append(is_stderr, text, newline.is_some());
            rest = &rest[(end + 1).min(rest.len())..];
        }
        state.flush();
        state.files_before
    }

    /// Closes the file after the container exited; an unterminated line is written as a partial
    /// entry.
    pub(crate) fn finish(&self) {
        let mut state = self.state.lock();
        state.write_pending();
        state.file = None;
    }

    /// Rotates if the file has `max_size` bytes, as the kubelet's periodic check does. A file that
    /// was removed is created again.
    ///
    /// *Errors*: those of the file system.
    pub(crate) fn rotate_if_full(&self, max_size: u64, max_files: usize) -> io::Result<()> {
        if self.state.lock().file.is_none() {
            return Ok(());
        }
        match files::metadata(&self.path) {
            Ok(file) if file.len >= max_size => self.rotate(max_files),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.reopen(),
            Err(error) => Err(error),
        }
    }

    /// Rotates in the kubelet's order: removes the oldest files, compresses the others, renames the
    /// current file and creates a new one.
    ///
    /// *Errors*: those of the file system.
    pub(crate) fn rotate(&self, max_files: usize) -> io::Result<()> {
        rotated_files::clean(&self.path, max_files)?;
        let mut state = self.state.lock();
        if state.file.is_none() {
            return Ok(());
        }
        match files::rename(&self.path, &self.rotated_path(&mut state)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => {
                drop(state);
                self.reopen()
            }
        }
    }

    /// Makes the runtime write to a new file; it opens that before it closes the old one.
    fn reopen(&self) -> io::Result<()> {
        let mut state = self.state.lock();
        if state.file.is_some() {
            let new_file = open(&self.path)?;
            state.write_pending();
            state.file = Some(new_file);
            state.files_before += 1;
        }
        Ok(())
    }

    /// Removes the current file by hand: the runtime continues to write to the file without a name
    /// until the next check.
    ///
    /// *Errors*: those of the file system.
    pub(crate) fn remove_current(&self) -> io::Result<()> {
        files::remove_file(&self.path)
    }

    /// Empties the current file by hand.
    ///
    /// *Errors*: those of the file system.
    pub(crate) fn truncate(&self) -> io::Result<()> {
        OpenOptions::new().write(true).open(&self.path)?.set_len(0)
    }

    /// Removes all files, as the kubelet does with the container.
    pub(crate) fn remove(&self) {
        let rotated = rotated_files::list(&self.path).unwrap_or_default();
        for path in rotated.iter().chain([&self.path]) {
            match files::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(path = %path.display(), %error, "log file remove failed");
                }
                _ => {}
            }
        }
    }

    /// Returns the name of the file that is rotated now: the node's local time, in seconds that no
    /// other file has.
    fn rotated_path(&self, state: &mut State) -> PathBuf {
        let now = self.node.now().as_second();
        let (last, last_now) = state.rotated;
        let mut second = if now < last_now { now } else { now.max(last + 1) };
        let zone = self.node.time_zone();
        loop {
            let time = timestamp(u64::try_from(second).unwrap_or(0).saturating_mul(NANOS));
            let local = time.to_zoned(zone.clone());
            let path = with_suffix(&self.path, &local.strftime(".%Y%m%d-%H%M%S").to_string());
            let is_free = |path: &Path| files::metadata(path).is_err();
            if is_free(&path) && is_free(&with_suffix(&path, ".gz")) {
                state.rotated = (second, now);
                return path;
            }
            second += 1;
        }
    }
}

impl State {
    /// Starts a line on an output stream.
    fn begin_line(&mut self, is_stderr: bool, time: &[u8]) {
        let partial = &mut self.partial_lines[usize::from(is_stderr)];
        partial.time.clear();
        partial.time.extend_from_slice(time.trim_ascii_end());
    }

    /// Adds content to an output stream's line, or ends it.
    fn append(&mut self, is_stderr: bool, text: &[u8], is_ended: bool) {
        let mut partial = std::mem::take(&mut self.partial_lines[usize::from(is_stderr)]);
        if is_ended && partial.pending.is_empty() && text.len() <= MAX_ENTRY_BYTES {
            self.write_entry(is_stderr, &mut partial.time, b'F', text);
        } else {
            partial.pending.extend_from_slice(text);
            while partial.pending.len() > MAX_ENTRY_BYTES {
                let piece: Vec<u8> = partial.pending.drain(..MAX_ENTRY_BYTES).collect();
                self.write_entry(is_stderr, &mut partial.time, b'P', &piece);
            }
            if is_ended {
                let pending = std::mem::take(&mut partial.pending);
                self.write_entry(is_stderr, &mut partial.time, b'F', &pending);
            }
        }
        self.partial_lines[usize::from(is_stderr)] = partial;
    }

    /// Appends an entry. Entries after the first of a line get the time at which they are read.
    fn write_entry(&mut self, is_stderr: bool, time: &mut Vec<u8>, tag: u8, text: &[u8]) {
        if time.is_empty() {
            let mut now = BytesMut::new();
            let nanos = self.clock.stamp(LineTime::Now, is_stderr);
            self.clock.write_prefix(nanos, &mut now);
            time.extend_from_slice(now.trim_ascii_end());
        }
        self.buffer.extend_from_slice(trim_zeros(time));
        self.buffer
            .extend_from_slice(if is_stderr { b"Z stderr " } else { b"Z stdout " });
        self.buffer.extend_from_slice(&[tag, b' ']);
        self.buffer.extend_from_slice(text);
        self.buffer.push(b'\n');
        time.clear();
    }

    /// Writes unterminated lines as partial entries.
    fn write_pending(&mut self) {
        for is_stderr in [false, true] {
            let mut partial = std::mem::take(&mut self.partial_lines[usize::from(is_stderr)]);
            if !partial.pending.is_empty() {
                let pending = std::mem::take(&mut partial.pending);
                self.write_entry(is_stderr, &mut partial.time, b'P', &pending);
            }
            self.partial_lines[usize::from(is_stderr)] = partial;
        }
        self.flush();
    }

    fn flush(&mut self) {
        if let Some(file) = &mut self.file
            && let Err(error) = file.append(&mut [IoSlice::new(&self.buffer)])
        {
            tracing::error!(%error, "log file write failed");
        }
        self.buffer.clear();
    }
}

/// Cuts the zone and trailing zeros off `2026-11-23T08:46:44.959447400Z`, as Go formats it.
fn trim_zeros(time: &[u8]) -> &[u8] {
    let mut end = time.len().saturating_sub(1);
    while end > 0 && time[end - 1] == b'0' && end > SECOND_BYTES {
        end -= 1;
    }
    if end == SECOND_BYTES + 1 {
        &time[..SECOND_BYTES]
    } else {
        &time[..end]
    }
}

/// Opens the current file as the runtime does: data goes to its end, wherever that is.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

/// Appends to the name of a file.
pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

const NANOS: u64 = 1_000_000_000;

/// The runtime splits longer lines (containerd's `max_container_log_line_size`).
const MAX_ENTRY_BYTES: usize = 16_384;

/// Length of `2026-11-23T08:46:44`.
const SECOND_BYTES: usize = 19;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trailing_zeros_are_trimmed_as_in_go() {
        for (time, trimmed) in [
            ("2026-11-23T08:46:44.959447400Z", "2026-11-23T08:46:44.9594474"),
            ("2026-11-23T08:46:40.000000000Z", "2026-11-23T08:46:40"),
            ("2026-11-23T08:46:40.000000001Z", "2026-11-23T08:46:40.000000001"),
            ("2026-11-23T08:46:40.100000000Z", "2026-11-23T08:46:40.1"),
        ] {
            assert_eq!(trim_zeros(time.as_bytes()), trimmed.as_bytes());
        }
    }
}
