//! One pod: its API state and the logs of its containers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use jiff::Timestamp;

use crate::logs::container_log::ContainerLog;
use crate::scenario::{RestartPolicy, Role};

/// Namespace and name.
pub(crate) type PodKey = (String, String);

/// A pod at one resource version. Every change clones it: watches keep the previous state.
#[derive(Clone)]
pub(crate) struct Pod {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) version: u64,
    pub(crate) generation: u64,
    pub(crate) observed_generation: Option<u64>,
    pub(crate) created: Timestamp,
    pub(crate) deletion: Option<Deletion>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) annotations: BTreeMap<String, String>,
    /// Name and UID of the owning ReplicaSet.
    pub(crate) owner: Option<(String, String)>,
    /// Empty until the pod is scheduled.
    pub(crate) node: String,
    pub(crate) phase: Phase,
    pub(crate) started: Option<Timestamp>,
    pub(crate) sandbox_ready: bool,
    pub(crate) ip: Option<String>,
    /// Time of the last change of readiness.
    pub(crate) ready_changed: Timestamp,
    pub(crate) containers: Vec<Container>,
    /// Whether the API has served it with a container that had started; all versions share it.
    pub(crate) is_served: Arc<AtomicBool>,
}

/// The pending deletion of a pod.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deletion {
    pub(crate) at: Timestamp,
    pub(crate) grace_seconds: i64,
}

/// `status.phase`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Pending,
    Running,
    Succeeded,
    Failed,
}

/// One container of a pod.
#[derive(Clone)]
pub(crate) struct Container {
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) restart: RestartPolicy,
    pub(crate) state: State,
    pub(crate) last: Option<Terminated>,
    pub(crate) restarts: u32,
    /// ID of the newest instance: `containerd://` and 64 hex digits.
    pub(crate) id: Option<String>,
    /// Logs by instance ID that the node still has: of the newest instance and at most one before
    /// it.
    pub(crate) logs: Vec<(String, Arc<ContainerLog>)>,
}

/// State of a container.
#[derive(Debug, Clone)]
pub(crate) enum State {
    Waiting { reason: String, message: Option<String> },
    Running { started: Timestamp },
    Terminated(Terminated),
}

/// The end of a container instance.
#[derive(Debug, Clone)]
pub(crate) struct Terminated {
    pub(crate) exit_code: i32,
    pub(crate) started: Timestamp,
    pub(crate) finished: Timestamp,
    pub(crate) id: String,
}

impl Pod {
    /// Returns the pod's key.
    pub(crate) fn key(&self) -> PodKey {
        (self.namespace.clone(), self.name.clone())
    }

    /// Records that the API serves this version.
    pub(crate) fn mark_served(&self) {
        if self.containers.iter().any(|container| container.id.is_some()) {
            self.is_served.store(true, Ordering::Relaxed);
        }
    }

    /// Takes over what the kubelet reports: the status, and the deletion that it completes.
    pub(crate) fn set_status(&mut self, reported: &Self) {
        self.observed_generation = reported.observed_generation;
        self.deletion = reported.deletion.or(self.deletion);
        self.phase = reported.phase;
        self.started = reported.started;
        self.sandbox_ready = reported.sandbox_ready;
        self.ip.clone_from(&reported.ip);
        self.ready_changed = reported.ready_changed;
        self.containers.clone_from(&reported.containers);
    }

    /// Returns a container by name.
    pub(crate) fn container(&self, name: &str) -> Option<&Container> {
        self.containers.iter().find(|container| container.name == name)
    }

    /// Returns a container by name, mutably.
    pub(crate) fn container_mut(&mut self, name: &str) -> Option<&mut Container> {
        self.containers.iter_mut().find(|container| container.name == name)
    }

    /// Returns the main containers.
    pub(crate) fn main(&self) -> impl DoubleEndedIterator<Item = &Container> {
        self.containers.iter().filter(|container| container.role == Role::Main)
    }

    /// Returns the init containers, sidecars included.
    pub(crate) fn init(&self) -> impl DoubleEndedIterator<Item = &Container> {
        let init = |container: &&Container| matches!(container.role, Role::Init | Role::Sidecar);
        self.containers.iter().filter(init)
    }

    /// Returns the ephemeral containers that have started.
    pub(crate) fn ephemeral(&self) -> impl DoubleEndedIterator<Item = &Container> {
        let started =
            |container: &&Container| matches!(container.role, Role::Ephemeral { .. }) && container.id.is_some();
        self.containers.iter().filter(started)
    }

    /// Returns the containers that run as long as the pod: sidecars and main containers.
    pub(crate) fn long_running(&self) -> impl DoubleEndedIterator<Item = &Container> {
        let sidecars = self.init().filter(|container| container.role == Role::Sidecar);
        sidecars.chain(self.main())
    }

    /// Returns whether all sidecars and main containers are running.
    pub(crate) fn ready(&self) -> bool {
        self.long_running().all(Container::is_running)
    }

    /// Returns whether the init containers have succeeded and the sidecars have started.
    pub(crate) fn initialized(&self) -> bool {
        self.init().all(|container| match container.role {
            Role::Sidecar => container.id.is_some(),
            _ => container.succeeded(),
        })
    }

    /// Returns the pod's restart policy: the policy of its first main container.
    pub(crate) fn restart_policy(&self) -> RestartPolicy {
        self.main()
            .next()
            .map_or(RestartPolicy::Always, |container| container.restart)
    }

    /// Returns the phase of the pod after all containers have terminated.
    pub(crate) fn final_phase(&self) -> Phase {
        let failed = |container: &Container| match &container.state {
            State::Terminated(end) => end.exit_code != 0,
            _ => container.last.as_ref().is_some_and(|end| end.exit_code != 0),
        };
        let init = self.init().filter(|container| container.role == Role::Init);
        if self.main().chain(init).any(failed) {
            Phase::Failed
        } else {
            Phase::Succeeded
        }
    }
}

impl Phase {
    /// Returns the name in the API.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Running => "Running",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
        }
    }

    /// Returns whether the phase is final.
    pub(crate) fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }
}

impl Container {
    /// Returns the log of an instance, if the node still has it.
    pub(crate) fn log(&self, id: &str) -> Option<Arc<ContainerLog>> {
        self.logs
            .iter()
            .find(|(instance, _)| instance == id)
            .map(|(_, log)| Arc::clone(log))
    }

    /// Returns whether the container is running.
    pub(crate) fn is_running(&self) -> bool {
        matches!(self.state, State::Running { .. })
    }

    /// Returns whether the container terminated with exit code 0.
    pub(crate) fn succeeded(&self) -> bool {
        matches!(&self.state, State::Terminated(end) if end.exit_code == 0)
    }

    /// Starts a new instance; a terminated state becomes the last state.
    pub(crate) fn start(&mut self, id: String, log: Arc<ContainerLog>, now: Timestamp) {
        if let State::Terminated(end) = &self.state {
            self.last = Some(end.clone());
        }
        if self.id.is_some() {
            self.restarts += 1;
        }
        self.state = State::Running { started: now };
        self.id = Some(id.clone());
        self.logs.push((id, log));
    }

    /// Terminates the running instance and removes the log of the instance before it, as the
    /// kubelet does.
    pub(crate) fn terminate(&mut self, exit_code: i32, now: Timestamp) {
        let (State::Running { started }, Some(id)) = (&self.state, &self.id) else {
            return;
        };
        let started = *started;
        let dead = self.logs.iter().filter(|(instance, _)| instance != id);
        dead.filter_map(|(_, log)| log.files()).for_each(|files| files.remove());
        self.logs.retain(|(instance, _)| instance == id);
        self.state = State::Terminated(Terminated {
            exit_code,
            started,
            finished: now,
            id: id.clone(),
        });
    }

    /// Sets the state to `CrashLoopBackOff`.
    pub(crate) fn set_backoff(&mut self, message: String) {
        if let State::Terminated(end) = &self.state {
            self.last = Some(end.clone());
        }
        self.state = State::Waiting {
            reason: "CrashLoopBackOff".to_owned(),
            message: Some(message),
        };
    }
}
