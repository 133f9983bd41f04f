//! What happens to a pod: it is created and bound, its containers start, it ends or is deleted.
//!
//! The order of the changes is what watchers of a real API server see.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::future::join_all;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::pod::{Container, Deletion, Phase, Pod, PodKey, State};
use super::rotation;
use super::running::{Running, new_instance};
use crate::error::Error;
use crate::ids;
use crate::logs::log::{Log, lock};
use crate::scenario::PodPlan;
use crate::sim::{Handle, NODE, Sim};

/// Creates the pods of a plan and runs them. Returns their names.
pub(crate) fn create_pods(sim: &Arc<Sim>, plan: &PodPlan) -> Result<Vec<String>, Error> {
    let Some(count) = plan.replicas else {
        create_pod(sim, plan, &plan.name, None)?;
        return Ok(vec![plan.name.clone()]);
    };
    let replicas = ids::replica_names(sim.seed, &plan.namespace, &plan.name, count);
    let owner = (format!("{}-{}", plan.name, replicas.hash), ids::uid());
    for name in &replicas.pods {
        create_pod(sim, plan, name, Some((&owner, &replicas.hash)))?;
    }
    Ok(replicas.pods)
}

fn create_pod(
    sim: &Arc<Sim>,
    plan: &PodPlan,
    name: &str,
    owner: Option<(&(String, String), &str)>,
) -> Result<(), Error> {
    let mut pod = new_pod(plan, name);
    if let Some((owner, hash)) = owner {
        pod.owner = Some(owner.clone());
        pod.labels.insert("pod-template-hash".to_owned(), hash.to_owned());
    }
    let (key, uid) = (pod.key(), pod.uid.clone());
    let terminate = CancellationToken::new();
    let (exits, receivers): (HashMap<_, _>, Vec<_>) = plan
        .containers
        .iter()
        .map(|container| {
            let (sender, receiver) = mpsc::channel(1);
            ((container.name.clone(), sender), receiver)
        })
        .unzip();
    if !sim.store.create(pod) {
        return Err(Error::PodExists {
            namespace: key.0,
            pod: key.1,
        });
    }
    tracing::info!(namespace = key.0, pod = key.1, "pod created");
    lock(&sim.running).insert(
        key.clone(),
        Handle {
            uid: uid.clone(),
            terminate: terminate.clone(),
            exits,
        },
    );
    let runner = PodRunner {
        sim: Arc::clone(sim),
        key,
        uid,
        plan: plan.clone(),
        terminate,
    };
    let stop = sim.stop.clone();
    sim.tasks
        .spawn(async move { stop.run_until_cancelled_owned(runner.run(receivers)).await });
    Ok(())
}

/// Deletes a pod, with its grace period or by force. Returns it as it then is; `None` when there is none.
pub(crate) fn delete_pod(sim: &Arc<Sim>, key: &PodKey, grace_seconds: Option<i64>) -> Option<Arc<Pod>> {
    let pod = sim.store.pod(key)?;
    let terminate = lock(&sim.running)
        .get(key)
        .filter(|own| own.uid == pod.uid)
        .map(|own| own.terminate.clone());
    let grace = grace_seconds.unwrap_or(DEFAULT_GRACE_SECONDS).max(0);
    tracing::info!(namespace = key.0, pod = key.1, grace, "pod deleted");
    if grace == 0 {
        sim.store.remove(key, &pod.uid);
        if let Some(terminate) = terminate {
            // The object is gone at once; the kubelet notices and kills the containers.
            sim.tasks.spawn(sim.stop.clone().run_until_cancelled_owned(async move {
                sleep(FORCED_TO_KILL).await;
                terminate.cancel();
            }));
        }
        return Some(pod);
    }
    if pod.deletion.is_some() {
        return Some(pod);
    }
    let grace = if pod.phase.ended() || pod.node.is_empty() {
        0
    } else {
        grace
    };
    sim.store.update(key, &pod.uid, |pod| {
        pod.generation += 1;
        pod.deletion = Some(Deletion {
            at: Timestamp::now() + SignedDuration::from_secs(grace),
            grace_seconds: grace,
        });
    });
    let deleted = sim.store.pod(key).unwrap_or(pod);
    if let Some(terminate) = terminate {
        terminate.cancel();
    }
    Some(deleted)
}

/// One pod's life.
struct PodRunner {
    sim: Arc<Sim>,
    key: PodKey,
    uid: String,
    plan: PodPlan,
    terminate: CancellationToken,
}

impl PodRunner {
    async fn run(self, exits: Vec<mpsc::Receiver<i32>>) {
        let unscheduled = self.plan.node.as_deref() == Some("");
        if !unscheduled {
            self.run_containers(exits).await;
            if !self.terminate.is_cancelled() {
                self.end_phase();
            }
        }
        self.terminate.cancelled().await;
        self.tear_down().await;
        let mut running = lock(&self.sim.running);
        if running.get(&self.key).is_some_and(|own| own.uid == self.uid) {
            running.remove(&self.key);
        }
    }

    async fn run_containers(&self, exits: Vec<mpsc::Receiver<i32>>) {
        let Some(logs) = self.terminate.run_until_cancelled(self.start()).await else {
            return;
        };
        let containers = self.plan.containers.iter().zip(exits).zip(logs);
        let runs = containers.map(|((plan, exits), log)| async move {
            match log {
                Some(log) => self.running(plan.clone(), exits).run(log).await,
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

    /// Pending, the sandbox, then all containers at once: each step an event of its own.
    async fn start(&self) -> Vec<Option<Arc<Log>>> {
        sleep(START_STEP).await;
        self.change(|pod| {
            pod.observed_generation = Some(pod.generation);
            pod.started = Some(Timestamp::now());
        });
        sleep(START_STEP).await;
        self.change(|pod| pod.sandbox_ready = true);
        sleep(START_STEP).await;
        let number = self.sim.next_ip.fetch_add(1, Ordering::Relaxed);
        let instances: Vec<_> = self
            .plan
            .containers
            .iter()
            .map(|plan| {
                plan.waiting
                    .is_none()
                    .then(|| new_instance(&self.sim, &self.key, &self.uid, &plan.name, 0))
            })
            .collect();
        self.change(|pod| {
            let now = Timestamp::now();
            pod.ip = Some(format!("10.244.{}.{}", number / 254, number % 254 + 1));
            for (container, (plan, instance)) in pod
                .containers
                .iter_mut()
                .zip(self.plan.containers.iter().zip(&instances))
            {
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

    fn running(&self, plan: crate::scenario::ContainerPlan, exits: mpsc::Receiver<i32>) -> Running {
        Running {
            sim: Arc::clone(&self.sim),
            key: self.key.clone(),
            uid: self.uid.clone(),
            plan,
            exits,
            terminate: self.terminate.clone(),
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
        self.sim.store.remove(&self.key, &self.uid);
        rotation::remove_later(&self.sim, &self.key, &self.uid);
        tracing::info!(namespace = self.key.0, pod = self.key.1, "pod gone");
    }

    fn change(&self, change: impl FnOnce(&mut Pod)) {
        self.sim.store.update(&self.key, &self.uid, change);
    }
}

fn new_pod(plan: &PodPlan, name: &str) -> Pod {
    let mut labels = plan.labels.clone();
    labels.entry("app".to_owned()).or_insert_with(|| plan.name.clone());
    let now = Timestamp::now();
    let containers = plan.containers.iter().map(|container| Container {
        name: container.name.clone(),
        restart: container.restart,
        state: State::Waiting {
            reason: "ContainerCreating".to_owned(),
            message: None,
        },
        last: None,
        restarts: 0,
        id: None,
        logs: Vec::new(),
    });
    Pod {
        namespace: plan.namespace.clone(),
        name: name.to_owned(),
        uid: ids::uid(),
        version: 0,
        generation: 1,
        observed_generation: None,
        created: now,
        deletion: None,
        labels,
        annotations: plan.annotations.clone(),
        owner: None,
        node: plan.node.clone().unwrap_or_else(|| NODE.to_owned()),
        phase: Phase::Pending,
        started: None,
        sandbox_ready: false,
        ip: None,
        ready_changed: now,
        containers: containers.collect(),
    }
}

/// Between two steps of a pod's start: long enough to be seen one by one, short enough for tests.
const START_STEP: Duration = Duration::from_millis(20);
/// From a container's last exit until the pod's object goes.
const REMOVAL: Duration = Duration::from_secs(1);
/// A forced deletion's containers run on for this long.
const FORCED_TO_KILL: Duration = Duration::from_secs(2);
/// `terminationGracePeriodSeconds` of a pod that does not say.
pub(crate) const DEFAULT_GRACE_SECONDS: i64 = 30;
/// 128 + SIGTERM.
const KILLED_BY_TERM: i32 = 143;
