//! The handle of a running cluster.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use jiff::Timestamp;
use tokio::time::timeout;

use crate::access::User;
use crate::error::Error;
use crate::faults;
use crate::node::kubelet;
use crate::scenario::{FaultKind, PodPlan};
use crate::service::ApiService;
use crate::simulation::{Interrupt, NODE, Simulation};
use crate::store::pod::{Container, Pod, PodKey};

pub(crate) mod lines;
mod lookup;
pub(crate) mod output;

use lookup::{key, no_pod, not_running};

/// A running simulated cluster. Dropping it stops it without waiting; [`Cluster::shutdown`] waits.
pub struct Cluster {
    pub(crate) sim: Arc<Simulation>,
    pub(crate) addr: SocketAddr,
    pub(crate) router: Router,
}

impl Cluster {
    /// Returns the address of the API; `0.0.0.0:0` if it has no port.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Returns the API as a service, without a port.
    #[must_use]
    pub fn service(&self) -> ApiService {
        ApiService::new(Arc::clone(&self.sim), self.router.clone())
    }

    /// Returns the time of the node's clock.
    #[must_use]
    pub fn node_time(&self) -> Timestamp {
        self.sim.machine.run(|| self.sim.clock.now())
    }

    /// Returns how many requests for logs the API has received.
    #[must_use]
    pub fn log_requests(&self) -> u64 {
        self.sim.state.log_requests.load(Ordering::Relaxed)
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
        self.sim.machine.run(|| kubelet::create_pods(&self.sim, plan))
    }

    /// Returns a flag that is set once the API has served a pod with a container that had started. Until
    /// then no client can know of its logs.
    ///
    /// *Errors*: [`Error::NoPod`].
    pub fn served(&self, namespace: &str, pod: &str) -> Result<Arc<AtomicBool>, Error> {
        let key = key(namespace, pod);
        let pod = self.sim.pods.get_on_node(&key).ok_or_else(|| no_pod(&key))?;
        Ok(Arc::clone(&pod.is_served))
    }

    /// Deletes a pod. `grace_seconds`: `None` is the default of 30, 0 forces the deletion.
    ///
    /// Returns when the deletion is stored; the containers end and the object disappears in the
    /// following seconds.
    ///
    /// *Errors*: [`Error::NoPod`].
    pub fn delete_pod(&self, namespace: &str, pod: &str, grace_seconds: Option<i64>) -> Result<(), Error> {
        let key = key(namespace, pod);
        let deleted = self
            .sim
            .machine
            .run(|| kubelet::delete_pod(&self.sim, &key, grace_seconds));
        deleted.map(|_| ()).ok_or_else(|| no_pod(&key))
    }

    /// Sets an annotation of a pod, or removes it.
    ///
    /// *Errors*: [`Error::NoPod`].
    pub fn set_annotation(&self, namespace: &str, pod: &str, name: &str, value: Option<&str>) -> Result<(), Error> {
        let key = key(namespace, pod);
        let uid = self.sim.pods.get_on_node(&key).ok_or_else(|| no_pod(&key))?.uid.clone();
        self.sim.pods.update_object(&key, &uid, |pod| match value {
            Some(value) => drop(pod.annotations.insert(name.to_owned(), value.to_owned())),
            None => drop(pod.annotations.remove(name)),
        });
        Ok(())
    }

    /// Waits until a container is running on the node, without a timeout. The API may show it later.
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

    /// Makes a running container exit. Returns when the node has noticed the exit.
    ///
    /// *Errors*: [`Error::NoPod`], [`Error::NotRunning`], [`Error::Closed`].
    pub async fn exit_container(&self, namespace: &str, pod: &str, container: &str, code: i32) -> Result<(), Error> {
        let key = key(namespace, pod);
        let not_running = || not_running(&key, container);
        let stored = self.sim.pods.get_on_node(&key).ok_or_else(|| no_pod(&key))?;
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
        self.running_instance(namespace, pod, container)?;
        sender.try_send(code).map_err(|_| not_running())?;
        let ended = |pod: Option<&Pod>| {
            let container = pod.and_then(|pod| pod.container(container));
            container.is_none_or(|now| now.id.as_ref() != Some(&id) || !now.is_running())
        };
        self.wait_pod(&key, ended).await
    }

    /// Returns namespace and name of every existing pod, sorted.
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
        let mut changes = self.sim.pods.changed();
        loop {
            changes.mark_unchanged();
            if holds(self.sim.pods.get_on_node(key).as_deref()) {
                return Ok(());
            }
            tokio::select! {
                biased;
                changed = changes.changed() => changed.map_err(|_| Error::Closed)?,
                () = self.sim.stop.cancelled() => return Err(Error::Closed),
            }
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.sim.stop.cancel();
    }
}

/// Shutdown deadline: tasks stop at their next await, except while a client does not read.
const SHUTDOWN: Duration = Duration::from_secs(2);
