//! One pod's life: its containers start, run and end, and it goes.
//!
//! The order of the changes is what watchers of a real API server see.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::future::join_all;
use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::container_lifecycle::{Running, new_instance};
use super::log_rotation;
use crate::logs::container_log::Log;
use crate::scenario::{ContainerPlan, PodPlan, Role};
use crate::simulation::Sim;
use crate::store::pod::{Container, Deletion, Phase, Pod, PodKey, State};

/// A container that is planned, and what makes it exit.
type Planned = (ContainerPlan, mpsc::Receiver<i32>);

/// One pod's life.
#[derive(Clone)]
pub(crate) struct PodLife {
    pub(crate) sim: Arc<Sim>,
    pub(crate) key: PodKey,
    pub(crate) uid: String,
    pub(crate) plan: PodPlan,
    pub(crate) terminate: CancellationToken,
}

impl PodLife {
    /// Runs until it is gone.
    pub(crate) async fn run(self, exits: Vec<mpsc::Receiver<i32>>) {
        let unscheduled = self.plan.node.as_deref() == Some("");
        if !unscheduled {
            self.run_containers(exits).await;
            if !self.terminate.is_cancelled() {
                self.end_phase();
            }
        }
        self.terminate.cancelled().await;
        self.tear_down().await;
        let mut running = self.sim.running.lock();
        if running.get(&self.key).is_some_and(|own| own.uid == self.uid) {
            running.remove(&self.key);
        }
    }

    /// The init containers one after another, the main ones at once, and what runs beside them.
    async fn run_containers(&self, exits: Vec<mpsc::Receiver<i32>>) {
        if self.terminate.run_until_cancelled(self.make_sandbox()).await.is_none() {
            return;
        }
        let all = self.plan.containers.iter().cloned().zip(exits);
        let (main, others): (Vec<_>, Vec<_>) = all.partition(|(plan, _)| plan.role == Role::Main);
        let (ephemeral, init): (Vec<_>, Vec<_>) = others
            .into_iter()
            .partition(|(plan, _)| matches!(plan.role, Role::Ephemeral { .. }));
        // Sidecars and ephemeral containers end with the main ones.
        let beside = self.terminate.child_token();
        let mut companions = JoinSet::new();
        if self.initialize(init, &beside, &mut companions).await {
            let logs = self.start_main(&main);
            self.accompany(ephemeral, &beside, &mut companions);
            self.run_main(main, logs).await;
        }
        beside.cancel();
        companions.join_all().await;
        if !self.terminate.is_cancelled() {
            self.change(|pod| {
                let left = pod.containers.iter_mut().filter(|container| container.runs());
                left.for_each(|container| container.end(KILLED_BY_TERM, Timestamp::now()));
            });
        }
    }

    /// Pending, then the sandbox: each step an event of its own.
    async fn make_sandbox(&self) {
        sleep(START_STEP).await;
        self.change(|pod| {
            pod.observed_generation = Some(pod.generation);
            pod.started = Some(Timestamp::now());
        });
        sleep(START_STEP).await;
        self.change(|pod| pod.sandbox_ready = true);
        sleep(START_STEP).await;
    }

    /// Runs the init containers, and starts the sidecars among them. Returns whether the main ones may start.
    async fn initialize(&self, init: Vec<Planned>, beside: &CancellationToken, companions: &mut JoinSet<()>) -> bool {
        for (plan, exits) in init {
            let (name, is_sidecar) = (plan.name.clone(), plan.role == Role::Sidecar);
            let log = self.begin(&name);
            if is_sidecar {
                companions.spawn(self.running(plan, exits, beside.clone()).run(log));
                continue;
            }
            self.running(plan, exits, self.terminate.clone()).run(log).await;
            let pod = self.sim.store.pod(&self.key);
            let succeeded = pod.is_some_and(|pod| pod.container(&name).is_some_and(Container::succeeded));
            if !succeeded || self.terminate.is_cancelled() {
                return false;
            }
        }
        true
    }

    /// Starts all main containers at once.
    fn start_main(&self, main: &[Planned]) -> Vec<Option<Arc<Log>>> {
        let number = self.sim.next_ip.fetch_add(1, Ordering::Relaxed);
        let instances: Vec<_> = main
            .iter()
            .map(|(plan, _)| {
                plan.waiting
                    .is_none()
                    .then(|| new_instance(&self.sim, &self.key, &self.uid, &plan.name, 0))
            })
            .collect();
        self.change(|pod| {
            let now = Timestamp::now();
            pod.ip = Some(format!("10.244.{}.{}", number / 254, number % 254 + 1));
            let containers = pod
                .containers
                .iter_mut()
                .filter(|container| container.role == Role::Main);
            for (container, ((plan, _), instance)) in containers.zip(main.iter().zip(&instances)) {
                match (instance, &plan.waiting) {
                    (Some((id, log)), _) => container.begin(id.clone(), Arc::clone(log), now),
                    (None, Some(reason)) => {
                        container.state = State::Waiting {
                            reason: reason.clone(),
                            message: None,
                        }
                    }
                    (None, None) => {}
                }
            }
            if instances.iter().all(Option::is_some) {
                pod.phase = Phase::Running;
            }
        });
        instances
            .into_iter()
            .map(|instance| instance.map(|(_, log)| log))
            .collect()
    }

    /// Runs the main containers until all have ended for good, or the pod is terminated.
    async fn run_main(&self, main: Vec<Planned>, logs: Vec<Option<Arc<Log>>>) {
        let runs = main.into_iter().zip(logs).map(|((plan, exits), log)| async move {
            match log {
                Some(log) => self.running(plan, exits, self.terminate.clone()).run(log).await,
                None => self.terminate.cancelled().await,
            }
        });
        let mut all = pin!(join_all(runs));
        tokio::select! {
            biased;
            () = self.terminate.cancelled() => {
                self.change(|pod| pod.observed_generation = Some(pod.generation));
                all.await;
            }
            _ = &mut all => {}
        }
    }

    /// Has the ephemeral containers come, each at its time.
    fn accompany(&self, ephemeral: Vec<Planned>, beside: &CancellationToken, companions: &mut JoinSet<()>) {
        for (plan, exits) in ephemeral {
            let Role::Ephemeral { after } = plan.role else { continue };
            let (own, beside) = (self.clone(), beside.clone());
            companions.spawn(async move {
                if beside.run_until_cancelled(sleep(after)).await.is_some() {
                    let log = own.begin(&plan.name);
                    own.running(plan, exits, beside).run(log).await;
                }
            });
        }
    }

    /// Starts the first instance of a container.
    fn begin(&self, name: &str) -> Arc<Log> {
        let (id, log) = new_instance(&self.sim, &self.key, &self.uid, name, 0);
        self.change(|pod| {
            if let Some(container) = pod.container_mut(name) {
                container.begin(id, Arc::clone(&log), Timestamp::now());
            }
        });
        log
    }

    fn running(&self, plan: ContainerPlan, exits: mpsc::Receiver<i32>, terminate: CancellationToken) -> Running {
        Running {
            sim: Arc::clone(&self.sim),
            key: self.key.clone(),
            uid: self.uid.clone(),
            plan,
            exits,
            terminate,
        }
    }

    fn end_phase(&self) {
        self.change(|pod| {
            pod.phase = pod.final_phase();
            pod.sandbox_ready = false;
        });
    }

    /// The containers are gone: the pod goes.
    async fn tear_down(&self) {
        let graceful =
            self.sim.store.pod(&self.key).is_some_and(|pod| {
                pod.uid == self.uid && pod.deletion.is_some_and(|deletion| deletion.grace_seconds > 0)
            });
        if graceful {
            self.change(|pod| {
                let now = Timestamp::now();
                pod.containers
                    .iter_mut()
                    .for_each(|container| container.end(KILLED_BY_TERM, now));
                pod.phase = pod.final_phase();
                pod.sandbox_ready = false;
            });
            sleep(REMOVAL).await;
            self.change(|pod| {
                pod.deletion = Some(Deletion {
                    at: Timestamp::now(),
                    grace_seconds: 0,
                })
            });
        }
        log_rotation::remove_later(&self.sim, &self.key, &self.uid);
        self.sim.store.remove(&self.key, &self.uid);
        tracing::info!(namespace = self.key.0, pod = self.key.1, "pod gone");
    }

    fn change(&self, change: impl FnOnce(&mut Pod)) {
        self.sim.store.update(&self.key, &self.uid, change);
    }
}

/// Between two steps of a pod's start: long enough to be seen one by one, short enough for tests.
const START_STEP: Duration = Duration::from_millis(20);
/// From a container's last exit until the pod's object goes.
const REMOVAL: Duration = Duration::from_secs(1);
/// 128 + SIGTERM.
const KILLED_BY_TERM: i32 = 143;
