//! A container instance's log on disk, as the runtime writes it and the kubelet rotates it.

use std::fs::{self, File};
use std::io::{self, BufReader, Write};
use std::path::{Path, PathBuf};

use bytes::BytesMut;
use flate2::Compression;
use flate2::write::GzEncoder;
use parking_lot::Mutex;

use super::clock::{Clock, PREFIX_BYTES};

/// The files of one container instance: `n.log`, and what was rotated away.
///
/// *Shape*: `<time, zeros trimmed> <stdout|stderr> <P|F> <content>`, a long line in pieces of [`PIECE_BYTES`].
pub(crate) struct FileLog {
    path: PathBuf,
    state: Mutex<State>,
}

struct State {
    /// Absent once the container has exited.
    file: Option<File>,
    size: u64,
    sides: [Side; 2],
    clock: Clock,
    buffer: Vec<u8>,
    /// The last rotation's time, as names have it: no two are alike.
    rotated: i64,
}

/// One of the two outputs.
#[derive(Default)]
struct Side {
    /// What was printed of a line and not written.
    pending: Vec<u8>,
    /// Its time, as the log API prints it.
    time: Vec<u8>,
}

impl FileLog {
    /// Makes the file, and its directory.
    ///
    /// *Errors*: the system's.
    pub(crate) fn create(path: PathBuf) -> io::Result<Self> {
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        let state = State {
            file: Some(File::create(&path)?),
            size: 0,
            sides: Default::default(),
            clock: Clock::default(),
            buffer: Vec::new(),
            rotated: 0,
        };
        Ok(Self {
            path,
            state: Mutex::new(state),
        })
    }

    /// Writes lines with their times in front. `continues`: the first bytes go on with the open line, of standard error where that is true.
    /// `stderr_lines`: which of the lines that begin here go to standard error.
    pub(crate) fn write(&self, data: &[u8], continues: Option<bool>, stderr_lines: &[u32]) {
        let mut state = self.state.lock();
        let mut stderr_lines = stderr_lines.iter().copied().peekable();
        let (mut rest, mut continues, mut line) = (data, continues, 0);
        while !rest.is_empty() {
            let newline = memchr::memchr(b'\n', rest);
            let end = newline.unwrap_or(rest.len());
            let (mut text, is_err) = (&rest[..end], continues.take());
            let is_err = is_err.unwrap_or_else(|| {
                let is_err = stderr_lines.next_if_eq(&line).is_some();
                line += 1;
                let (time, content) = text.split_at(PREFIX_BYTES.min(text.len()));
                state.begin(is_err, time);
                text = content;
                is_err
            });
            state.print(is_err, text, newline.is_some());
            rest = &rest[(end + 1).min(rest.len())..];
        }
        state.flush();
    }

    /// The container exited: what it left without a newline is written, tagged as a part.
    pub(crate) fn finish(&self) {
        let mut state = self.state.lock();
        state.write_pending();
        state.file = None;
    }

    /// Says whether the container still writes, and how much it has since the last rotation.
    pub(crate) fn size(&self) -> Option<u64> {
        let state = self.state.lock();
        state.file.is_some().then_some(state.size)
    }

    /// Rotates: the oldest goes, older ones are compressed, the current one is renamed and a new one begun. In that order, as the kubelet does.
    ///
    /// *Errors*: the system's.
    pub(crate) fn rotate(&self, max_files: usize) -> io::Result<()> {
        let rotated = self.rotated()?;
        // One is the current one, another will be it.
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
        fs::rename(&self.path, self.named(state.rotated))?;
        let fresh = File::create(&self.path)?;
        // The runtime opens the new file first and lets go of the old one then.
        state.write_pending();
        state.file = Some(fresh);
        state.size = 0;
        Ok(())
    }

    /// Removes all files: the kubelet removed the container.
    pub(crate) fn remove(&self) {
        let rotated = self.rotated().unwrap_or_default();
        for path in rotated.iter().chain([&self.path]) {
            if let Err(error) = fs::remove_file(path) {
                tracing::warn!(path = %path.display(), %error, "log file not removed");
            }
        }
    }

    /// The rotated files, oldest first.
    fn rotated(&self) -> io::Result<Vec<PathBuf>> {
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

    fn named(&self, second: i64) -> PathBuf {
        let time = jiff::Timestamp::from_second(second).unwrap_or_default();
        let local = time.to_zoned(jiff::tz::TimeZone::system());
        let mut name = self.path.clone().into_os_string();
        name.push(local.strftime(".%Y%m%d-%H%M%S").to_string());
        name.into()
    }
}

impl State {
    /// A line begins on an output, at this time.
    fn begin(&mut self, is_err: bool, time: &[u8]) {
        let side = &mut self.sides[usize::from(is_err)];
        side.time.clear();
        side.time.extend_from_slice(time.trim_ascii_end());
    }

    /// More of an output's line, or the end of it.
    fn print(&mut self, is_err: bool, text: &[u8], is_ended: bool) {
        let mut side = std::mem::take(&mut self.sides[usize::from(is_err)]);
        if is_ended && side.pending.is_empty() && text.len() <= PIECE_BYTES {
            self.entry(is_err, &mut side.time, b'F', text);
        } else {
            side.pending.extend_from_slice(text);
            while side.pending.len() > PIECE_BYTES {
                let piece: Vec<u8> = side.pending.drain(..PIECE_BYTES).collect();
                self.entry(is_err, &mut side.time, b'P', &piece);
            }
            if is_ended {
                let pending = std::mem::take(&mut side.pending);
                self.entry(is_err, &mut side.time, b'F', &pending);
            }
        }
        self.sides[usize::from(is_err)] = side;
    }

    /// Each piece after a line's first has its own time: when it was read.
    fn entry(&mut self, is_err: bool, time: &mut Vec<u8>, tag: u8, text: &[u8]) {
        if time.is_empty() {
            let mut now = BytesMut::new();
            let nanos = self.clock.read();
            self.clock.stamp(nanos, &mut now);
            time.extend_from_slice(now.trim_ascii_end());
        }
        self.buffer.extend_from_slice(trim_zeros(time));
        self.buffer
            .extend_from_slice(if is_err { b"Z stderr " } else { b"Z stdout " });
        self.buffer.extend_from_slice(&[tag, b' ']);
        self.buffer.extend_from_slice(text);
        self.buffer.push(b'\n');
        time.clear();
    }

    /// What has no newline yet, as a part.
    fn write_pending(&mut self) {
        for is_err in [false, true] {
            let mut side = std::mem::take(&mut self.sides[usize::from(is_err)]);
            if !side.pending.is_empty() {
                let pending = std::mem::take(&mut side.pending);
                self.entry(is_err, &mut side.time, b'P', &pending);
            }
            self.sides[usize::from(is_err)] = side;
        }
        self.flush();
    }

    fn flush(&mut self) {
        if let Some(file) = &mut self.file
            && let Err(error) = file.write_all(&self.buffer)
        {
            tracing::error!(%error, "log file not written");
        }
        self.size += self.buffer.len() as u64;
        self.buffer.clear();
    }
}

/// `2026-11-23T08:46:44.959447400Z` without the zone and the zeros before it, as Go prints it.
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
    let beside = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let mut plain = BufReader::new(File::open(path)?);
    let mut gz = GzEncoder::new(File::create(beside(".tmp"))?, Compression::fast());
    io::copy(&mut plain, &mut gz)?;
    gz.finish()?;
    fs::rename(beside(".tmp"), beside(".gz"))?;
    fs::remove_file(path)
}

/// The runtime splits longer lines (containerd's `max_container_log_line_size`).
const PIECE_BYTES: usize = 16_384;

/// `2026-11-23T08:46:44`.
const SECOND_BYTES: usize = 19;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_are_trimmed_as_go_trims_them() {
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
