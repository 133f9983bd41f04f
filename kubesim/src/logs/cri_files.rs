//! Log files of a container instance in CRI format, written and rotated as container runtime and
//! kubelet do.

use std::fs::{self, File};
use std::io::{self, BufReader, Write};
use std::path::{Path, PathBuf};

use bytes::BytesMut;
use flate2::Compression;
use flate2::write::GzEncoder;
use parking_lot::Mutex;

use super::clock::{LogClock, PREFIX_BYTES};

/// The log files of one container instance: `N.log` and its rotated files.
///
/// *Shape*: `<time, trailing zeros trimmed> <stdout|stderr> <P|F> <content>`; a long line is split
/// into entries of [`MAX_ENTRY_BYTES`].
pub(crate) struct CriLogFiles {
    path: PathBuf,
    state: Mutex<State>,
}

struct State {
    /// `None` after the container exited.
    file: Option<File>,
    size: u64,
    partial_lines: [PartialLine; 2],
    clock: LogClock,
    buffer: Vec<u8>,
    /// Unix second in the name of the last rotated file; unique per rotation.
    rotated: i64,
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
    pub(crate) fn create(path: PathBuf) -> io::Result<Self> {
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        let state = State {
            file: Some(File::create(&path)?),
            size: 0,
            partial_lines: Default::default(),
            clock: LogClock::default(),
            buffer: Vec::new(),
            rotated: 0,
        };
        Ok(Self {
            path,
            state: Mutex::new(state),
        })
    }

    /// Writes lines with timestamp prefixes. `continues`: the first bytes continue the unterminated
    /// line, on standard error if true. `stderr_lines`: indexes of the lines starting here that go
    /// to standard error.
    pub(crate) fn write(&self, data: &[u8], continues: Option<bool>, stderr_lines: &[u32]) {
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
    }

    /// Closes the file after the container exited; an unterminated line is written as a partial
    /// entry.
    pub(crate) fn finish(&self) {
        let mut state = self.state.lock();
        state.write_pending();
        state.file = None;
    }

    /// Returns the size of the current file, or `None` after the container exited.
    pub(crate) fn size(&self) -> Option<u64> {
        let state = self.state.lock();
        state.file.is_some().then_some(state.size)
    }

    /// Rotates in the kubelet's order: removes the oldest files, compresses the others, renames the
    /// current file and creates a new one.
    ///
    /// *Errors*: those of the file system.
    pub(crate) fn rotate(&self, max_files: usize) -> io::Result<()> {
        let rotated = self.rotated_files()?;
        // One of `max_files` is the current file, and the current file becomes a rotated one.
        let surplus = rotated.len().saturating_sub(max_files.saturating_sub(2));
        for (at, path) in rotated.iter().enumerate() {
            if at < surplus {
                fs::remove_file(path)?;
            } else if path.extension().is_none_or(|extension| extension != "gz") {
                compress(path)?;
            }
        }
        let mut state = self.state.lock();
        if state.file.is_none() {
            return Ok(());
        }
        state.rotated = (state.rotated + 1).max(jiff::Timestamp::now().as_second());
        fs::rename(&self.path, self.rotated_path(state.rotated))?;
        let new_file = File::create(&self.path)?;
        // The runtime opens the new file before it closes the old one.
        state.write_pending();
        state.file = Some(new_file);
        state.size = 0;
        Ok(())
    }

    /// Removes all files, as the kubelet does with the container.
    pub(crate) fn remove(&self) {
        let rotated = self.rotated_files().unwrap_or_default();
        for path in rotated.iter().chain([&self.path]) {
            if let Err(error) = fs::remove_file(path) {
                tracing::warn!(path = %path.display(), %error, "log file remove failed");
            }
        }
    }

    /// Returns the rotated files, oldest first.
    fn rotated_files(&self) -> io::Result<Vec<PathBuf>> {
        let (dir, current) = (self.path.parent(), self.path.file_name());
        let prefix = format!("{}.", current.unwrap_or_default().to_string_lossy());
        let mut rotated = Vec::new();
        for entry in fs::read_dir(dir.unwrap_or(Path::new(".")))? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(&prefix) {
                rotated.push(entry.path());
            }
        }
        rotated.sort();
        Ok(rotated)
    }

    fn rotated_path(&self, second: i64) -> PathBuf {
        let time = jiff::Timestamp::from_second(second).unwrap_or_default();
        let local = time.to_zoned(jiff::tz::TimeZone::system());
        let mut name = self.path.clone().into_os_string();
        name.push(local.strftime(".%Y%m%d-%H%M%S").to_string());
        name.into()
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
            let nanos = self.clock.read();
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
            && let Err(error) = file.write_all(&self.buffer)
        {
            tracing::error!(%error, "log file write failed");
        }
        self.size += self.buffer.len() as u64;
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

fn compress(path: &Path) -> io::Result<()> {
    let with_suffix = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let mut plain = BufReader::new(File::open(path)?);
    let mut gz = GzEncoder::new(File::create(with_suffix(".tmp"))?, Compression::fast());
    io::copy(&mut plain, &mut gz)?;
    gz.finish()?;
    fs::rename(with_suffix(".tmp"), with_suffix(".gz"))?;
    fs::remove_file(path)
}

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
