//! Lines written by the handle, of which the writer knows everything: for tests that compare what a
//! collector read with what was written.

use jiff::Timestamp;

use super::Cluster;
use super::output::split_lines;
use crate::error::Error;
use crate::logs::clock::LineTime;
use crate::logs::container_log::{APPEND_BYTES, Append, ContainerLog};
use crate::time::timestamp;

/// A line to write.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogLine {
    /// The content. A `\n` starts another line with the same time.
    pub text: Vec<u8>,
    /// Whether it goes to standard error.
    pub stderr: bool,
    /// The timestamp, even if the line before is newer; `None`: the time of the node's clock. Many
    /// lines may have the same time.
    pub time: Option<Timestamp>,
}

/// What [`Cluster::write_log`] wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenLines {
    /// ID of the container instance: `containerd://` and 64 hex digits.
    pub container_id: String,
    /// The lines, in the order of the log.
    pub lines: Vec<WrittenLine>,
}

/// One written line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WrittenLine {
    /// Number of the line in the log of its instance, from 0.
    pub number: u64,
    /// Whether it went to standard error.
    pub stderr: bool,
    /// Its timestamp.
    pub time: Timestamp,
    /// Number of rotations before it of the log that the API serves: the file it is in.
    pub rotations: u64,
    /// Number of log files of the instance before the one it is in, if the node writes log files: it
    /// grows when a file is rotated, or created again after it was removed.
    pub files_before: Option<u64>,
}

impl From<&str> for LogLine {
    fn from(text: &str) -> Self {
        Self {
            text: text.into(),
            ..Self::default()
        }
    }
}

impl Cluster {
    /// Writes lines to a running container's log as one burst.
    ///
    /// *Errors*: [`Error::NoPod`], [`Error::NotRunning`].
    pub fn write_log(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        lines: impl IntoIterator<Item = LogLine>,
    ) -> Result<WrittenLines, Error> {
        let (container_id, log) = self.running_instance(namespace, pod, container)?;
        let mut lines = lines.into_iter().peekable();
        let mut written = Vec::new();
        while lines.peek().is_some() {
            self.sim.machine.run(|| append(&log, &mut lines, &mut written));
        }
        Ok(WrittenLines {
            container_id,
            lines: written,
        })
    }
}

/// Writes as many lines as fit one append.
fn append(log: &ContainerLog, lines: &mut impl Iterator<Item = LogLine>, written: &mut Vec<WrittenLine>) {
    let first = written.len();
    let fill = |append: &mut Append<'_>| {
        while append.len() < APPEND_BYTES
            && let Some(line) = lines.next()
        {
            let nanos = |time: Timestamp| u64::try_from(time.as_nanosecond()).unwrap_or(0);
            let time = line.time.map_or(LineTime::Now, |time| LineTime::At(nanos(time)));
            for text in split_lines(&line.text) {
                if line.stderr {
                    append.stderr();
                }
                append.line_at(time, |out| out.extend_from_slice(text));
                written.push(WrittenLine {
                    // Counted from the start of the append until that is known.
                    number: u64::from(append.lines()),
                    stderr: line.stderr,
                    time: timestamp(append.last()),
                    rotations: 0,
                    files_before: None,
                });
            }
        }
    };
    let appended = log.append(fill);
    for line in &mut written[first..] {
        // The first line has number 0, but one that continues an unterminated line did not start here.
        line.number = (appended.lines_before + line.number).saturating_sub(1);
        line.rotations = appended.rotations;
        line.files_before = appended.files_before;
    }
}
