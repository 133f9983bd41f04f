//! Creation and deletion of pods.

use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use system::collections::HashMap;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::pod_lifecycle::PodRunner;
use crate::error::Error;
use crate::ids;
use crate::scenario::{PodPlan, Role};
use crate::simulation::{NODE, RunningPod, Simulation};
use crate::store::pod::{Container, Deletion, Phase, Pod, PodKey, State};
use crate::time;

/// Creates the pods of a plan and runs them. Returns their names.
///
/// *Errors*: [`Error::PodExists`].
pub(crate) fn create_pods(sim: &Arc<Simulation>, plan: &PodPlan) -> Result<Vec<String>, Error> {
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
    sim: &Arc<Simulation>,
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
    if !sim.pods.create(pod) {
        return Err(Error::PodExists {
            namespace: key.0,
            pod: key.1,
        });
    }
    tracing::info!(namespace = key.0, pod = key.1, "pod created");
    sim.running_pods.lock().insert(
        key.clone(),
        RunningPod {
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
    sim.spawn(runner.run(receivers));
    Ok(())
}

/// Deletes a pod, gracefully or by force. Returns its state after the call; `None` if it does not
/// exist.
pub(crate) fn delete_pod(sim: &Arc<Simulation>, key: &PodKey, grace_seconds: Option<i64>) -> Option<Arc<Pod>> {
    let pod = sim.pods.get(key)?;
    let terminate = sim
        .running_pods
        .lock()
        .get(key)
        .filter(|running| running.uid == pod.uid)
        .map(|running| running.terminate.clone());
    let grace = grace_seconds.unwrap_or(DEFAULT_GRACE_SECONDS).max(0);
    tracing::info!(namespace = key.0, pod = key.1, grace, "pod deleted");
    if grace == 0 {
        sim.pods.remove_object(key, &pod.uid);
        if let Some(terminate) = terminate {
            // The object disappears at once; the kubelet notices later and kills the containers.
            sim.spawn(async move {
                sleep(FORCED_KILL_DELAY).await;
                terminate.cancel();
            });
        }
        return Some(pod);
    }
    if pod.deletion.is_some() {
        return Some(pod);
    }
    let grace = if pod.phase.is_final() || pod.node.is_empty() {
        0
    } else {
        grace
    };
    let deletion = Deletion {
        at: time::now() + SignedDuration::from_secs(grace),
        grace_seconds: grace,
    };
    sim.pods.update_object(key, &pod.uid, |pod| {
        pod.generation += 1;
        pod.deletion = Some(deletion);
    });
    let deleted = sim.pods.get(key).unwrap_or(pod);
    if let Some(terminate) = terminate {
        terminate.cancel();
    }
    Some(deleted)
}

fn new_pod(plan: &PodPlan, name: &str) -> Pod {
    let mut labels = plan.labels.clone();
    labels.entry("app".to_owned()).or_insert_with(|| plan.name.clone());
    let now = time::now();
    let has_init = plan
        .containers
        .iter()
        .any(|container| matches!(container.role, Role::Init | Role::Sidecar));
    let waiting_reason = if has_init {
        "PodInitializing"
    } else {
        "ContainerCreating"
    };
    let containers = plan.containers.iter().map(|container| Container {
        name: container.name.clone(),
        role: container.role,
        restart: container.restart,
        state: State::Waiting {
            reason: waiting_reason.to_owned(),
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
        is_served: Arc::default(),
    }
}

/// Time from a forced deletion until the containers are killed.
const FORCED_KILL_DELAY: Duration = Duration::from_secs(2);
/// Default of `terminationGracePeriodSeconds`.
pub(crate) const DEFAULT_GRACE_SECONDS: i64 = 30;
