//! One pod: what the API says about it, and the logs of its containers.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use crate::logs::container_log::Log;
use crate::scenario::{RestartPolicy, Role};

/// Namespace and name.
pub(crate) type PodKey = (String, String);

/// A pod as one resource version has it. Cloned for each change: watchers keep the old one.
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
    /// The ReplicaSet that owns it: name and uid.
    pub(crate) owner: Option<(String, String)>,
    /// Empty until it is scheduled.
    pub(crate) node: String,
    pub(crate) phase: Phase,
    pub(crate) started: Option<Timestamp>,
    pub(crate) sandbox_ready: bool,
    pub(crate) ip: Option<String>,
    /// When the containers' readiness last changed.
    pub(crate) ready_changed: Timestamp,
    pub(crate) containers: Vec<Container>,
}

/// That a pod is being deleted.
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
    /// Of the newest instance: `containerd://` and 64 hex digits.
    pub(crate) id: Option<String>,
    /// The logs the node still has: the newest instance's, and at most one dead one's before it.
    pub(crate) logs: Vec<(String, Arc<Log>)>,
}

/// A container's state.
#[derive(Debug, Clone)]
pub(crate) enum State {
    Waiting { reason: String, message: Option<String> },
    Running { started: Timestamp },
    Terminated(Terminated),
}

/// How a container instance ended.
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

    /// Returns a container by name.
    pub(crate) fn container(&self, name: &str) -> Option<&Container> {
        self.containers.iter().find(|container| container.name == name)
    }

    /// Returns a container by name, to be changed.
    pub(crate) fn container_mut(&mut self, name: &str) -> Option<&mut Container> {
        self.containers.iter_mut().find(|container| container.name == name)
    }

    /// Returns the containers that the pod is for.
    pub(crate) fn main(&self) -> impl DoubleEndedIterator<Item = &Container> {
        self.containers.iter().filter(|container| container.role == Role::Main)
    }

    /// Returns the init containers, and the sidecars among them.
    pub(crate) fn init(&self) -> impl DoubleEndedIterator<Item = &Container> {
        let init = |container: &&Container| matches!(container.role, Role::Init | Role::Sidecar);
        self.containers.iter().filter(init)
    }

    /// Returns the ephemeral containers that came into the pod.
    pub(crate) fn ephemeral(&self) -> impl DoubleEndedIterator<Item = &Container> {
        let came = |container: &&Container| matches!(container.role, Role::Ephemeral { .. }) && container.id.is_some();
        self.containers.iter().filter(came)
    }

    /// Returns those that run beside each other for as long as the pod does.
    pub(crate) fn lasting(&self) -> impl DoubleEndedIterator<Item = &Container> {
        let sidecars = self.init().filter(|container| container.role == Role::Sidecar);
        sidecars.chain(self.main())
    }

    /// Says whether all containers run that should.
    pub(crate) fn ready(&self) -> bool {
        self.lasting().all(Container::runs)
    }

    /// Says whether the init containers have ended, and the sidecars run.
    pub(crate) fn initialized(&self) -> bool {
        self.init().all(|container| match container.role {
            Role::Sidecar => container.id.is_some(),
            _ => container.succeeded(),
        })
    }

    /// Returns the pod's restart policy: that of its first main container.
    pub(crate) fn restart(&self) -> RestartPolicy {
        self.main()
            .next()
            .map_or(RestartPolicy::Always, |container| container.restart)
    }

    /// Returns the phase once every container has ended for good.
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
    /// Returns the name the API uses.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Running => "Running",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
        }
    }

    /// Says whether the pod has ended for good.
    pub(crate) fn ended(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }
}

impl Container {
    /// Returns the log of that instance, if the node still has it.
    pub(crate) fn log(&self, id: &str) -> Option<Arc<Log>> {
        self.logs
            .iter()
            .find(|(own, _)| own == id)
            .map(|(_, log)| Arc::clone(log))
    }

    /// Says whether it runs.
    pub(crate) fn runs(&self) -> bool {
        matches!(self.state, State::Running { .. })
    }

    /// Says whether it ended well.
    pub(crate) fn succeeded(&self) -> bool {
        matches!(&self.state, State::Terminated(end) if end.exit_code == 0)
    }

    /// Begins a new instance: what ended before becomes the last state.
    pub(crate) fn begin(&mut self, id: String, log: Arc<Log>, now: Timestamp) {
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

    /// Ends the running instance; the dead one before it and its log are removed at once, as the kubelet does.
    pub(crate) fn end(&mut self, exit_code: i32, now: Timestamp) {
        let (State::Running { started }, Some(id)) = (&self.state, &self.id) else {
            return;
        };
        let started = *started;
        let dead = self.logs.iter().filter(|(own, _)| own != id);
        dead.filter_map(|(_, log)| log.files()).for_each(|files| files.remove());
        self.logs.retain(|(own, _)| own == id);
        self.state = State::Terminated(Terminated {
            exit_code,
            started,
            finished: now,
            id: id.clone(),
        });
    }

    /// Says that the container waits before its next start.
    pub(crate) fn back_off(&mut self, message: String) {
        if let State::Terminated(end) = &self.state {
            self.last = Some(end.clone());
        }
        self.state = State::Waiting {
            reason: "CrashLoopBackOff".to_owned(),
            message: Some(message),
        };
    }
}
