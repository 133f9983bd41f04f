//! Container output from the handle: writes lines to running containers and reads their totals.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use jiff::Timestamp;

use super::Cluster;
use super::lookup::{key, no_pod, not_running};
use crate::error::Error;
use crate::logs::clock::LineTime;
use crate::logs::container_log::{APPEND_BYTES, Append, ContainerLog};
use crate::logs::cri_files::CriLogFiles;
use crate::time::timestamp;

/// What one container instance wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceOutput {
    /// ID of the instance: `containerd://` and 64 hex digits.
    pub container_id: String,
    /// Number of lines, including an unterminated last line.
    pub lines: u64,
    /// Bytes of content, without timestamps and newlines.
    pub bytes: u64,
    /// Number of rotations.
    pub rotations: u64,
}

impl Cluster {
    /// Returns what a container's instances wrote, oldest first, also for a deleted pod.
    ///
    /// Pods that had the same name one after the other share one list; the container IDs tell them
    /// apart.
    #[must_use]
    pub fn written(&self, namespace: &str, pod: &str, container: &str) -> Vec<InstanceOutput> {
        let instances = self.sim.ledger.instances(&key(namespace, pod), container);
        let outputs = instances.into_iter().map(|(container_id, totals)| InstanceOutput {
            container_id,
            lines: totals.lines.load(Ordering::Relaxed),
            bytes: totals.bytes.load(Ordering::Relaxed),
            rotations: totals.rotations.load(Ordering::Relaxed),
        });
        outputs.collect()
    }

    /// Writes one line to a running container's log. Returns the line's timestamp.
    ///
    /// A trailing `\r` is removed, as the container runtime does; a `\n` in the text starts another
    /// line.
    ///
    /// *Errors*: [`Error::NoPod`], [`Error::NotRunning`].
    pub fn write_line(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        text: impl AsRef<[u8]>,
    ) -> Result<Timestamp, Error> {
        self.write_lines(namespace, pod, container, [text])
    }

    /// Writes lines as one burst. Returns the last line's timestamp, or the Unix epoch if there are
    /// no lines.
    ///
    /// *Errors*: as [`Cluster::write_line`].
    pub fn write_lines<T: AsRef<[u8]>>(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        texts: impl IntoIterator<Item = T>,
    ) -> Result<Timestamp, Error> {
        let log = self.running_log(namespace, pod, container)?;
        let mut texts = texts.into_iter().peekable();
        let mut last = 0;
        while texts.peek().is_some() {
            let fill = |append: &mut Append<'_>| {
                while append.len() < APPEND_BYTES
                    && let Some(text) = texts.next()
                {
                    for line in split_lines(text.as_ref()) {
                        append.line(|out| out.extend_from_slice(line));
                    }
                }
            };
            last = self.sim.machine.run(|| log.append(fill)).last;
        }
        Ok(timestamp(last))
    }

    /// Writes one line with the timestamp `time`, or with the timestamp of the line before it if
    /// that is later. Lines written afterwards use the node's clock, but are not earlier than this
    /// one unless the clock steps back. Returns the line's timestamp.
    ///
    /// *Errors*: as [`Cluster::write_line`].
    pub fn write_line_at(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        time: Timestamp,
        text: impl AsRef<[u8]>,
    ) -> Result<Timestamp, Error> {
        let nanos = u64::try_from(time.as_nanosecond()).unwrap_or(0);
        self.append(namespace, pod, container, |append| {
            append.line_at(LineTime::NotBefore(nanos), |out| out.extend_from_slice(text.as_ref()));
        })
    }

    /// Writes text without a newline, as a container does that dies while it writes. Text written
    /// later continues the same line.
    ///
    /// *Errors*: as [`Cluster::write_line`].
    pub fn write_unterminated(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        text: impl AsRef<[u8]>,
    ) -> Result<Timestamp, Error> {
        self.append(namespace, pod, container, |append| {
            append.unterminated(LineTime::Now, |out| out.extend_from_slice(text.as_ref()));
        })
    }

    /// Writes one line to a running container's standard error. Only the log files distinguish it
    /// from standard output, the log API does not.
    ///
    /// *Errors*: as [`Cluster::write_line`].
    pub fn write_stderr(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        text: impl AsRef<[u8]>,
    ) -> Result<Timestamp, Error> {
        self.append(namespace, pod, container, |append| {
            append.stderr();
            append.line(|out| out.extend_from_slice(text.as_ref()));
        })
    }

    /// Rotates a running container's log file now, whatever its size, as the kubelet does: it
    /// compresses and removes older files. Does nothing if the node writes no log files.
    ///
    /// *Errors*: as [`Cluster::write_line`], [`Error::Rotate`].
    pub fn rotate_log_file(&self, namespace: &str, pod: &str, container: &str) -> Result<(), Error> {
        let max_files = self.sim.log_files.max_files;
        self.change_log_file(namespace, pod, container, |files| files.rotate(max_files))
    }

    /// Rotates the log that the API serves, unless it is empty.
    ///
    /// *Errors*: as [`Cluster::write_line`].
    pub fn rotate_log(&self, namespace: &str, pod: &str, container: &str) -> Result<(), Error> {
        self.running_log(namespace, pod, container)?.rotate();
        Ok(())
    }

    /// Removes a running container's log file by hand; see [`FaultKind::RemoveLogFiles`].
    ///
    /// *Errors*: as [`Cluster::write_line`], [`Error::Rotate`].
    ///
    /// [`FaultKind::RemoveLogFiles`]: crate::FaultKind::RemoveLogFiles
    pub fn remove_log_file(&self, namespace: &str, pod: &str, container: &str) -> Result<(), Error> {
        self.change_log_file(namespace, pod, container, CriLogFiles::remove_current)
    }

    /// Empties a running container's log file by hand.
    ///
    /// *Errors*: as [`Cluster::remove_log_file`].
    pub fn truncate_log_file(&self, namespace: &str, pod: &str, container: &str) -> Result<(), Error> {
        self.change_log_file(namespace, pod, container, CriLogFiles::truncate)
    }

    fn change_log_file(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        change: impl FnOnce(&CriLogFiles) -> io::Result<()>,
    ) -> Result<(), Error> {
        let log = self.running_log(namespace, pod, container)?;
        let Some(files) = log.files() else { return Ok(()) };
        self.sim.machine.run(|| change(files)).map_err(Error::Rotate)
    }

    /// Appends once to a running container's log. Returns the last line's timestamp.
    fn append(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        fill: impl FnOnce(&mut Append<'_>),
    ) -> Result<Timestamp, Error> {
        let log = self.running_log(namespace, pod, container)?;
        Ok(timestamp(self.sim.machine.run(|| log.append(fill)).last))
    }

    /// Returns the log of a running container.
    fn running_log(&self, namespace: &str, pod: &str, container: &str) -> Result<Arc<ContainerLog>, Error> {
        self.running_instance(namespace, pod, container).map(|(_, log)| log)
    }

    /// Returns the ID and the log of a running container.
    pub(super) fn running_instance(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
    ) -> Result<(String, Arc<ContainerLog>), Error> {
        let key = key(namespace, pod);
        let pod = self.sim.pods.get_on_node(&key).ok_or_else(|| no_pod(&key))?;
        let running = pod.container(container).filter(|container| container.is_running());
        let instance = running.and_then(|container| {
            let id = container.id.clone()?;
            let log = container.log(&id)?;
            Some((id, log))
        });
        instance.ok_or_else(|| not_running(&key, container))
    }
}

/// Splits text into lines as the container runtime does.
pub(super) fn split_lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| *byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
}
