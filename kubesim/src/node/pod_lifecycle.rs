//! The life of a pod: its containers start, run and end, and the pod is removed.
//!
//! Changes happen in the order in which watches of a real API server report them.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::future::join_all;
use system::task::spawn_in;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::container_lifecycle::{ContainerRunner, new_instance};
use super::log_files;
use crate::logs::container_log::ContainerLog;
use crate::scenario::{ContainerPlan, PodPlan, Role};
use crate::simulation::Simulation;
use crate::store::pod::{Container, Deletion, Phase, Pod, PodKey, State};
use crate::time;

/// The plan of a container and the receiver of its exit requests.
type PlannedContainer = (ContainerPlan, mpsc::Receiver<i32>);

/// Runs one pod.
#[derive(Clone)]
pub(crate) struct PodRunner {
    pub(crate) sim: Arc<Simulation>,
    pub(crate) key: PodKey,
    pub(crate) uid: String,
    pub(crate) plan: PodPlan,
    pub(crate) terminate: CancellationToken,
}

impl PodRunner {
    /// Runs the pod until it is removed.
    pub(crate) async fn run(self, exits: Vec<mpsc::Receiver<i32>>) {
        let unscheduled = self.plan.node.as_deref() == Some("");
        if !unscheduled {
            self.run_containers(exits).await;
            if !self.terminate.is_cancelled() {
                self.set_final_phase();
            }
        }
        self.terminate.cancelled().await;
        self.remove_pod().await;
        let mut running = self.sim.running_pods.lock();
        if running.get(&self.key).is_some_and(|running| running.uid == self.uid) {
            running.remove(&self.key);
        }
    }

    /// Runs the init containers one after another, then the main containers together, with sidecars
    /// and ephemeral containers beside them.
    async fn run_containers(&self, exits: Vec<mpsc::Receiver<i32>>) {
        if self
            .terminate
            .run_until_cancelled(self.create_sandbox())
            .await
            .is_none()
        {
            return;
        }
        let all = self.plan.containers.iter().cloned().zip(exits);
        let (main, others): (Vec<_>, Vec<_>) = all.partition(|(plan, _)| plan.role == Role::Main);
        let (ephemeral, init): (Vec<_>, Vec<_>) = others
            .into_iter()
            .partition(|(plan, _)| matches!(plan.role, Role::Ephemeral { .. }));
        // Sidecars and ephemeral containers end with the main containers.
        let companion_stop = self.terminate.child_token();
        let mut companions = JoinSet::new();
        if self.run_init_containers(init, &companion_stop, &mut companions).await {
            let logs = self.start_main(&main);
            self.start_ephemeral(ephemeral, &companion_stop, &mut companions);
            self.run_main(main, logs).await;
        }
        companion_stop.cancel();
        companions.join_all().await;
        if !self.terminate.is_cancelled() {
            self.update(|pod| {
                let left = pod.containers.iter_mut().filter(|container| container.is_running());
                left.for_each(|container| container.terminate(KILLED_BY_TERM, self.sim.clock.now()));
            });
        }
    }

    /// Pending, then sandbox ready: each change is a separate event.
    async fn create_sandbox(&self) {
        sleep(START_PAUSE).await;
        self.update(|pod| {
            pod.observed_generation = Some(pod.generation);
            pod.started = Some(self.sim.clock.now());
        });
        sleep(START_PAUSE).await;
        self.update(|pod| pod.sandbox_ready = true);
        sleep(START_PAUSE).await;
    }

    /// Runs the init containers and starts the sidecars. Returns whether the main containers may
    /// start.
    async fn run_init_containers(
        &self,
        init: Vec<PlannedContainer>,
        companion_stop: &CancellationToken,
        companions: &mut JoinSet<()>,
    ) -> bool {
        for (plan, exits) in init {
            let (name, is_sidecar) = (plan.name.clone(), plan.role == Role::Sidecar);
            let log = self.start_container(&name);
            if is_sidecar {
                let runner = self.container_runner(plan, exits, companion_stop.clone());
                spawn_in(companions, runner.run(log));
                continue;
            }
            self.container_runner(plan, exits, self.terminate.clone())
                .run(log)
                .await;
            let pod = self.sim.pods.get_on_node(&self.key);
            let succeeded = pod.is_some_and(|pod| pod.container(&name).is_some_and(Container::succeeded));
            if !succeeded || self.terminate.is_cancelled() {
                return false;
            }
        }
        true
    }

    /// Starts all main containers at once.
    fn start_main(&self, main: &[PlannedContainer]) -> Vec<Option<Arc<ContainerLog>>> {
        let number = self.sim.next_ip.fetch_add(1, Ordering::Relaxed);
        let instances: Vec<_> = main
            .iter()
            .map(|(plan, _)| {
                plan.waiting
                    .is_none()
                    .then(|| new_instance(&self.sim, &self.key, &self.uid, &plan.name, 0))
            })
            .collect();
        self.update(|pod| {
            let now = self.sim.clock.now();
            pod.ip = Some(format!("10.244.{}.{}", number / 254, number % 254 + 1));
            let containers = pod
                .containers
                .iter_mut()
                .filter(|container| container.role == Role::Main);
            for (container, ((plan, _), instance)) in containers.zip(main.iter().zip(&instances)) {
                match (instance, &plan.waiting) {
                    (Some((id, log)), _) => container.start(id.clone(), Arc::clone(log), now),
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

    /// Runs the main containers until all have ended without a restart, or the pod is terminated.
    async fn run_main(&self, main: Vec<PlannedContainer>, logs: Vec<Option<Arc<ContainerLog>>>) {
        let runs = main.into_iter().zip(logs).map(|((plan, exits), log)| async move {
            match log {
                Some(log) => {
                    self.container_runner(plan, exits, self.terminate.clone())
                        .run(log)
                        .await
                }
                None => self.terminate.cancelled().await,
            }
        });
        let mut all = pin!(join_all(runs));
        tokio::select! {
            biased;
            () = self.terminate.cancelled() => {
                self.update(|pod| pod.observed_generation = Some(pod.generation));
                all.await;
            }
            _ = &mut all => {}
        }
    }

    /// Starts the ephemeral containers, each at its time.
    fn start_ephemeral(
        &self,
        ephemeral: Vec<PlannedContainer>,
        companion_stop: &CancellationToken,
        companions: &mut JoinSet<()>,
    ) {
        for (plan, exits) in ephemeral {
            let Role::Ephemeral { after } = plan.role else { continue };
            let (runner, companion_stop) = (self.clone(), companion_stop.clone());
            let run = async move {
                if companion_stop.run_until_cancelled(sleep(after)).await.is_some() {
                    let log = runner.start_container(&plan.name);
                    runner.container_runner(plan, exits, companion_stop).run(log).await;
                }
            };
            spawn_in(companions, run);
        }
    }

    /// Starts the first instance of a container.
    fn start_container(&self, name: &str) -> Arc<ContainerLog> {
        let (id, log) = new_instance(&self.sim, &self.key, &self.uid, name, 0);
        self.update(|pod| {
            if let Some(container) = pod.container_mut(name) {
                container.start(id, Arc::clone(&log), self.sim.clock.now());
            }
        });
        log
    }

    fn container_runner(
        &self,
        plan: ContainerPlan,
        exits: mpsc::Receiver<i32>,
        terminate: CancellationToken,
    ) -> ContainerRunner {
        ContainerRunner {
            sim: Arc::clone(&self.sim),
            key: self.key.clone(),
            uid: self.uid.clone(),
            plan,
            exits,
            terminate,
        }
    }

    fn set_final_phase(&self) {
        self.update(|pod| {
            pod.phase = pod.final_phase();
            pod.sandbox_ready = false;
        });
    }

    /// Removes the pod after its containers have ended.
    async fn remove_pod(&self) {
        let graceful =
            self.sim.pods.get_on_node(&self.key).is_some_and(|pod| {
                pod.uid == self.uid && pod.deletion.is_some_and(|deletion| deletion.grace_seconds > 0)
            });
        if graceful {
            self.update(|pod| {
                let now = self.sim.clock.now();
                pod.containers
                    .iter_mut()
                    .for_each(|container| container.terminate(KILLED_BY_TERM, now));
                pod.phase = pod.final_phase();
                pod.sandbox_ready = false;
            });
            sleep(REMOVAL_DELAY).await;
            self.update(|pod| {
                pod.deletion = Some(Deletion {
                    at: time::now(),
                    grace_seconds: 0,
                })
            });
        }
        log_files::schedule_removal(&self.sim, &self.key, &self.uid);
        self.sim.pods.remove(&self.key, &self.uid);
        tracing::info!(namespace = self.key.0, pod = self.key.1, "pod removed");
    }

    fn update(&self, change: impl FnOnce(&mut Pod)) {
        self.sim.pods.update(&self.key, &self.uid, change);
    }
}

/// Pause between two changes of a pod's start: long enough for separate events, short for tests.
const START_PAUSE: Duration = Duration::from_millis(20);
/// Time from the last container's exit until the pod object is removed.
const REMOVAL_DELAY: Duration = Duration::from_secs(1);
/// Exit code of SIGTERM: 128 + 15.
const KILLED_BY_TERM: i32 = 143;
