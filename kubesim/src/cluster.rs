//! The handle of a running cluster.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::timeout;

use crate::access::User;
use crate::error::Error;
use crate::faults;
use crate::logs::clock::timestamp;
use crate::logs::container_log::{APPEND_BYTES, Append, ContainerLog};
use crate::node::kubelet;
use crate::scenario::{FaultKind, PodPlan};
use crate::simulation::{Interrupt, NODE, Simulation};
use crate::store::pod::{Container, Pod, PodKey};

/// A running simulated cluster. Dropping it stops it without waiting; [`Cluster::shutdown`] waits.
pub struct Cluster {
    pub(crate) sim: Arc<Simulation>,
    pub(crate) addr: SocketAddr,
}

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
    /// Returns the address of the API.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Returns a kubeconfig (YAML) whose current context is this cluster, without credentials.
    #[must_use]
    pub fn kubeconfig(&self) -> String {
        format!(
            "apiVersion: v1\nkind: Config\nclusters:\n- name: kubesim\n  cluster:\n    server: http://{}\n\
             users:\n- name: kubesim\n  user: {{}}\ncontexts:\n- name: kubesim\n  context:\n    cluster: kubesim\n    \
             user: kubesim\n    namespace: default\ncurrent-context: kubesim\n",
            self.addr
        )
    }

    /// Returns the name of the simulated node.
    #[must_use]
    pub fn node_name(&self) -> &str {
        NODE
    }

    /// Shuts down gracefully: stops the scenario and ends open follows and watches cleanly.
    ///
    /// *Bound*: at most two seconds.
    pub async fn shutdown(self) {
        self.sim.stop.cancel();
        self.sim.tasks.close();
        if timeout(SHUTDOWN, self.sim.tasks.wait()).await.is_err() {
            tracing::warn!(tasks = self.sim.tasks.len(), "shutdown deadline exceeded");
        }
    }

    /// Replaces the users that reviews and authorization know.
    pub fn set_users(&self, users: Vec<User>) {
        *self.sim.state.users.lock() = users;
    }

    /// Creates the pods of a plan now, ignoring `start_after` and `delete_after`. Returns their
    /// names.
    ///
    /// *Errors*: [`Error::PodExists`]; replicas before the existing one have been created.
    pub fn create_pod(&self, plan: &PodPlan) -> Result<Vec<String>, Error> {
        kubelet::create_pods(&self.sim, plan)
    }

    /// Deletes a pod. `grace_seconds`: `None` is the default of 30, 0 forces the deletion.
    ///
    /// Returns when the deletion is stored; the containers end and the object disappears in the
    /// following seconds.
    ///
    /// *Errors*: [`Error::NoPod`].
    pub fn delete_pod(&self, namespace: &str, pod: &str, grace_seconds: Option<i64>) -> Result<(), Error> {
        let key = key(namespace, pod);
        kubelet::delete_pod(&self.sim, &key, grace_seconds)
            .map(|_| ())
            .ok_or_else(|| no_pod(&key))
    }

    /// Waits until a container is running, without a timeout.
    ///
    /// *Errors*: [`Error::Closed`]. *Cancel safety*: safe.
    pub async fn wait_running(&self, namespace: &str, pod: &str, container: &str) -> Result<(), Error> {
        let key = key(namespace, pod);
        let runs = |pod: Option<&Pod>| {
            let container = pod.and_then(|pod| pod.container(container));
            container.is_some_and(Container::is_running)
        };
        self.wait_pod(&key, runs).await
    }

    /// Waits until a pod is gone, without a timeout.
    ///
    /// *Errors*: [`Error::Closed`]. *Cancel safety*: safe.
    pub async fn wait_gone(&self, namespace: &str, pod: &str) -> Result<(), Error> {
        self.wait_pod(&key(namespace, pod), |pod| pod.is_none()).await
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

    /// Makes a running container exit. Returns when its status shows the exit.
    ///
    /// *Errors*: [`Error::NoPod`], [`Error::NotRunning`], [`Error::Closed`].
    pub async fn exit_container(&self, namespace: &str, pod: &str, container: &str, code: i32) -> Result<(), Error> {
        let key = key(namespace, pod);
        let not_running = || not_running(&key, container);
        let stored = self.sim.pods.get(&key).ok_or_else(|| no_pod(&key))?;
        let id = stored
            .container(container)
            .and_then(|container| container.id.clone())
            .ok_or_else(not_running)?;
        let sender = {
            let running = self.sim.running_pods.lock();
            running
                .get(&key)
                .and_then(|handle| handle.exits.get(container).cloned())
                .ok_or_else(not_running)?
        };
        self.running_log(namespace, pod, container)?;
        sender.try_send(code).map_err(|_| not_running())?;
        let ended = |pod: Option<&Pod>| {
            let container = pod.and_then(|pod| pod.container(container));
            container.is_none_or(|now| now.id.as_ref() != Some(&id) || !now.is_running())
        };
        self.wait_pod(&key, ended).await
    }

    /// Returns what a container's instances wrote, oldest first, also for a deleted pod.
    ///
    /// Pods that had the same name one after the other share one list; the container IDs tell them
    /// apart.
    #[must_use]
    pub fn written(&self, namespace: &str, pod: &str, container: &str) -> Vec<InstanceOutput> {
        let instances = self.sim.ledger.instances(&key(namespace, pod), container);
        let read = instances.into_iter().map(|(container_id, counts)| InstanceOutput {
            container_id,
            lines: counts.lines.load(Ordering::Relaxed),
            bytes: counts.bytes.load(Ordering::Relaxed),
            rotations: counts.rotations.load(Ordering::Relaxed),
        });
        read.collect()
    }

    /// Returns namespace and name of every existing pod.
    #[must_use]
    pub fn pods(&self) -> Vec<(String, String)> {
        self.sim.pods.list().pods.iter().map(|pod| pod.key()).collect()
    }

    /// Ends every open follow and watch cleanly; see [`FaultKind::EndStreams`].
    pub fn end_streams(&self) {
        self.sim.interrupt(Interrupt::End);
    }

    /// Breaks off every open follow and watch; see [`FaultKind::BreakStreams`].
    pub fn break_streams(&self) {
        self.sim.interrupt(Interrupt::Break);
    }

    /// Closes the API port and breaks its connections, or opens it again. Takes effect shortly
    /// after the call.
    pub fn set_down(&self, down: bool) {
        self.sim.set_api_down(down);
    }

    /// Pauses or resumes follows; see [`FaultKind::StallFollows`].
    pub fn stall_follows(&self, stalled: bool) {
        self.sim.state.follows_stalled.send_replace(stalled);
    }

    /// Pauses or resumes watches; see [`FaultKind::MuteWatches`].
    pub fn mute_watches(&self, muted: bool) {
        self.sim.state.watches_muted.send_replace(muted);
    }

    /// Injects a fault now.
    pub fn cause(&self, fault: FaultKind) {
        faults::inject(&self.sim, fault);
    }

    async fn wait_pod(&self, key: &PodKey, holds: impl Fn(Option<&Pod>) -> bool) -> Result<(), Error> {
        let mut versions = self.sim.pods.versions();
        loop {
            versions.mark_unchanged();
            if holds(self.sim.pods.get(key).as_deref()) {
                return Ok(());
            }
            tokio::select! {
                changed = versions.changed() => changed.map_err(|_| Error::Closed)?,
                () = self.sim.stop.cancelled() => return Err(Error::Closed),
            }
        }
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

    fn running_log(&self, namespace: &str, pod: &str, container: &str) -> Result<Arc<ContainerLog>, Error> {
        let key = key(namespace, pod);
        let pod = self.sim.pods.get(&key).ok_or_else(|| no_pod(&key))?;
        let running = pod.container(container).filter(|container| container.is_running());
        let log = running.and_then(|container| container.log(container.id.as_deref()?));
        log.ok_or_else(|| not_running(&key, container))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.sim.stop.cancel();
    }
}

fn key(namespace: &str, pod: &str) -> PodKey {
    (namespace.to_owned(), pod.to_owned())
}

fn no_pod(key: &PodKey) -> Error {
    Error::NoPod {
        namespace: key.0.clone(),
        pod: key.1.clone(),
    }
}

fn not_running(key: &PodKey, container: &str) -> Error {
    Error::NotRunning {
        namespace: key.0.clone(),
        pod: key.1.clone(),
        container: container.to_owned(),
    }
}

/// Shutdown deadline: tasks stop at their next await, except while a client does not read.
const SHUTDOWN: Duration = Duration::from_secs(2);
