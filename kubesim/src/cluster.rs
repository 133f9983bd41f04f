//! The running cluster, as its owner holds it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::timeout;

use crate::access::User;
use crate::error::Error;
use crate::logs::clock::timestamp;
use crate::logs::container_log::{APPEND_BYTES, Append, Log};
use crate::node::kubelet;
use crate::scenario::{FaultKind, PodPlan};
use crate::simulation::{Interrupt, NODE, Sim};
use crate::store::pod::{Container, Pod, PodKey};
use crate::timeline;

/// A running simulated cluster. Dropping it stops it, without waiting; [`Cluster::shutdown`] waits.
pub struct Cluster {
    pub(crate) sim: Arc<Sim>,
    pub(crate) addr: SocketAddr,
}

/// What one container instance wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// `containerd://` and 64 hex digits.
    pub container_id: String,
    /// Lines, an unterminated last one included.
    pub lines: u64,
    /// Bytes of their content, without timestamps and newlines.
    pub bytes: u64,
    /// How often its file was rotated away.
    pub rotations: u64,
}

impl Cluster {
    /// Returns the address the API listens on.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Returns a kubeconfig (YAML) with this cluster as its current context and no credentials.
    #[must_use]
    pub fn kubeconfig(&self) -> String {
        format!(
            "apiVersion: v1\nkind: Config\nclusters:\n- name: kubesim\n  cluster:\n    server: http://{}\n\
             users:\n- name: kubesim\n  user: {{}}\ncontexts:\n- name: kubesim\n  context:\n    cluster: kubesim\n    \
             user: kubesim\n    namespace: default\ncurrent-context: kubesim\n",
            self.addr
        )
    }

    /// Returns the name of the node on which pods run unless their plan says otherwise.
    #[must_use]
    pub fn node_name(&self) -> &str {
        NODE
    }

    /// Stops playing and serving: open follows and watches end cleanly. Takes at most two seconds.
    pub async fn shutdown(self) {
        self.sim.stop.cancel();
        self.sim.tasks.close();
        if timeout(SHUTDOWN, self.sim.tasks.wait()).await.is_err() {
            tracing::warn!(tasks = self.sim.tasks.len(), "tasks left at shutdown");
        }
    }

    /// Takes the place of whom reviews know.
    pub fn set_users(&self, users: Vec<User>) {
        *self.sim.condition.users.lock() = users;
    }

    /// Creates the pods of a plan now (`start_after` and `delete_after` are not heeded). Returns their names.
    ///
    /// *Errors*: [`Error::PodExists`]; replicas before the one that exists have been created.
    pub fn create_pod(&self, plan: &PodPlan) -> Result<Vec<String>, Error> {
        kubelet::create_pods(&self.sim, plan)
    }

    /// Deletes a pod; `grace_seconds`: absent = the pod's own 30, 0 = by force.
    ///
    /// Returns once the deletion is stored; its containers end and the object goes in the seconds after.
    ///
    /// *Errors*: [`Error::NoPod`].
    pub fn delete_pod(&self, namespace: &str, pod: &str, grace_seconds: Option<i64>) -> Result<(), Error> {
        let key = key(namespace, pod);
        kubelet::delete_pod(&self.sim, &key, grace_seconds)
            .map(|_| ())
            .ok_or_else(|| no_pod(&key))
    }

    /// Waits until a container runs. Without a bound of its own.
    ///
    /// *Errors*: [`Error::Closed`]. *Cancel safety*: safe.
    pub async fn wait_running(&self, namespace: &str, pod: &str, container: &str) -> Result<(), Error> {
        let key = key(namespace, pod);
        let runs = |pod: Option<&Pod>| {
            let container = pod.and_then(|pod| pod.container(container));
            container.is_some_and(Container::runs)
        };
        self.wait_pod(&key, runs).await
    }

    /// Waits until a pod is gone. Without a bound of its own.
    ///
    /// *Errors*: [`Error::Closed`]. *Cancel safety*: safe.
    pub async fn wait_gone(&self, namespace: &str, pod: &str) -> Result<(), Error> {
        self.wait_pod(&key(namespace, pod), |pod| pod.is_none()).await
    }

    /// Writes one line to a running container's log. Returns the line's timestamp.
    ///
    /// The text is the content; a `\r` at its end is cut off, as the runtime does, and what a `\n` in it separates
    /// becomes several lines.
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

    /// Writes lines as one burst. Returns the last line's timestamp; that of 1970 when there are none.
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

    /// Writes one line as if it had been written at `time`, or at the line before it if that is later. Lines written
    /// without a time afterwards have the wall clock's, never less than this one. Returns the line's timestamp.
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

    /// Writes a line without its newline: a container's last words. Later lines would go on the same line.
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

    /// Lets a running container exit. Returns once its status says so: a watcher can know by then.
    ///
    /// *Errors*: [`Error::NoPod`], [`Error::NotRunning`], [`Error::Closed`].
    pub async fn exit_container(&self, namespace: &str, pod: &str, container: &str, code: i32) -> Result<(), Error> {
        let key = key(namespace, pod);
        let not_running = || not_running(&key, container);
        let stored = self.sim.store.pod(&key).ok_or_else(|| no_pod(&key))?;
        let id = stored
            .container(container)
            .and_then(|container| container.id.clone())
            .ok_or_else(not_running)?;
        let sender = {
            let running = self.sim.running.lock();
            running
                .get(&key)
                .and_then(|handle| handle.exits.get(container).cloned())
                .ok_or_else(not_running)?
        };
        self.running_log(namespace, pod, container)?;
        sender.try_send(code).map_err(|_| not_running())?;
        let ended = |pod: Option<&Pod>| {
            let container = pod.and_then(|pod| pod.container(container));
            container.is_none_or(|now| now.id.as_ref() != Some(&id) || !now.runs())
        };
        self.wait_pod(&key, ended).await
    }

    /// Returns what a container's instances wrote, oldest first; also of a pod that is gone.
    ///
    /// Pods that had the same name one after the other are not told apart here: the container ids are.
    #[must_use]
    pub fn written(&self, namespace: &str, pod: &str, container: &str) -> Vec<Written> {
        let instances = self.sim.ledger.instances(&key(namespace, pod), container);
        let read = instances.into_iter().map(|(container_id, counts)| Written {
            container_id,
            lines: counts.lines.load(Ordering::Relaxed),
            bytes: counts.bytes.load(Ordering::Relaxed),
            rotations: counts.rotations.load(Ordering::Relaxed),
        });
        read.collect()
    }

    /// Returns namespace and name of every pod that is there.
    #[must_use]
    pub fn pods(&self) -> Vec<(String, String)> {
        self.sim.store.list().pods.iter().map(|pod| pod.key()).collect()
    }

    /// Ends every open follow and watch cleanly.
    pub fn end_streams(&self) {
        self.sim.interrupt(Interrupt::End);
    }

    /// Breaks every open follow and watch off, without the last chunk.
    pub fn break_streams(&self) {
        self.sim.interrupt(Interrupt::Break);
    }

    /// Closes the API's port and breaks its connections, or opens it again. Takes effect shortly after.
    pub fn set_down(&self, down: bool) {
        self.sim.set_down(down);
    }

    /// Lets follows deliver nothing, or go on; see [`FaultKind::StallFollows`].
    pub fn stall_follows(&self, stalled: bool) {
        self.sim.condition.follows_stalled.send_replace(stalled);
    }

    /// Lets watches say nothing, or go on; see [`FaultKind::MuteWatches`].
    pub fn mute_watches(&self, muted: bool) {
        self.sim.condition.watches_muted.send_replace(muted);
    }

    /// Causes a fault of a scenario now.
    pub fn cause(&self, fault: FaultKind) {
        timeline::cause(&self.sim, fault);
    }

    async fn wait_pod(&self, key: &PodKey, holds: impl Fn(Option<&Pod>) -> bool) -> Result<(), Error> {
        let mut versions = self.sim.store.versions();
        loop {
            versions.mark_unchanged();
            if holds(self.sim.store.pod(key).as_deref()) {
                return Ok(());
            }
            tokio::select! {
                changed = versions.changed() => changed.map_err(|_| Error::Closed)?,
                () = self.sim.stop.cancelled() => return Err(Error::Closed),
            }
        }
    }

    /// Writes one line to a running container's standard error. The log API shows it among the others; only the files tell which is which.
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

    /// Rotates a running container's log file now, whatever its size: as the kubelet does it, compressing and removing older ones. Without files: nothing.
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

    fn running_log(&self, namespace: &str, pod: &str, container: &str) -> Result<Arc<Log>, Error> {
        let key = key(namespace, pod);
        let pod = self.sim.store.pod(&key).ok_or_else(|| no_pod(&key))?;
        let running = pod.container(container).filter(|own| own.runs());
        let log = running.and_then(|own| own.log(own.id.as_deref()?));
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

/// Everything stops at its next await; this bounds a client that does not read.
const SHUTDOWN: Duration = Duration::from_secs(2);
