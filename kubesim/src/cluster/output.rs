//! Container output from the handle: writes lines to running containers and reads their totals.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use jiff::Timestamp;

use super::Cluster;
use super::lookup::{key, no_pod, not_running};
use crate::error::Error;
use crate::logs::clock::timestamp;
use crate::logs::container_log::{APPEND_BYTES, Append, ContainerLog};

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
    /// A trailing `\r` is removed, as the container runtime does; a `
    /// ` in the text starts another line.
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
            last = log.append(|append| {
                while append.len() < APPEND_BYTES
                    && let Some(text) = texts.next()
                {
                    for line in text.as_ref().split(|byte| *byte == b'\n') {
                        let line = line.strip_suffix(b"\r").unwrap_or(line);
                        append.line(|out| out.extend_from_slice(line));
                    }
                }
            });
        }
        Ok(timestamp(last))
    }

    /// Writes one line with the timestamp `time`, or with the timestamp of the line before it if
    /// that is later. Lines written afterwards use the wall clock, but are never earlier than this
    /// one. Returns the line's timestamp.
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
            append.line_at(nanos, |out| out.extend_from_slice(text.as_ref()));
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
            append.unterminated(None, |out| out.extend_from_slice(text.as_ref()));
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
        let log = self.running_log(namespace, pod, container)?;
        let rotated = log.files().map(|files| files.rotate(self.sim.log_files.max_files));
        rotated.unwrap_or(Ok(())).map_err(Error::Rotate)
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
        Ok(timestamp(log.append(fill)))
    }

    /// Returns the log of a running container.
    pub(super) fn running_log(&self, namespace: &str, pod: &str, container: &str) -> Result<Arc<ContainerLog>, Error> {
        let key = key(namespace, pod);
        let pod = self.sim.pods.get(&key).ok_or_else(|| no_pod(&key))?;
        let running = pod.container(container).filter(|container| container.is_running());
        let log = running.and_then(|container| container.log(container.id.as_deref()?));
        log.ok_or_else(|| not_running(&key, container))
    }
}
