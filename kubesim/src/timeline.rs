//! Plays a scenario: creates and deletes its pods and causes its faults, each at its time.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use crate::node::kubelet::{create_pods, delete_pod};
use crate::scenario::{Fault, FaultKind, PodPlan, Scenario};
use crate::simulation::{Interrupt, Kubelet, Refusal, Sim};

enum Act {
    Create(PodPlan),
    Delete(PodPlan),
    Cause(FaultKind),
}

/// Plays the scenario to its end; what is due at the start has happened when the first await returns.
pub(crate) async fn play(sim: Arc<Sim>, scenario: Scenario) {
    let start = Instant::now();
    for (at, act) in acts(scenario) {
        sleep_until(start + at).await;
        perform(&sim, act);
    }
}

fn acts(scenario: Scenario) -> Vec<(Duration, Act)> {
    let mut acts = Vec::new();
    for pod in scenario.pods {
        if let Some(at) = pod.delete_after {
            acts.push((at, Act::Delete(pod.clone())));
        }
        acts.push((pod.start_after, Act::Create(pod)));
    }
    acts.extend(
        scenario
            .faults
            .into_iter()
            .map(|Fault { at, kind }| (at, Act::Cause(kind))),
    );
    acts.sort_by_key(|(at, _)| *at);
    acts
}

fn perform(sim: &Arc<Sim>, act: Act) {
    match act {
        Act::Create(plan) => {
            if let Err(error) = create_pods(sim, &plan) {
                tracing::warn!(%error, "pod of the scenario not created");
            }
        }
        Act::Delete(plan) => {
            for name in names(sim, &plan.namespace, &plan.name) {
                delete_pod(sim, &(plan.namespace.clone(), name), None);
            }
        }
        Act::Cause(kind) => cause(sim, kind),
    }
}

/// Causes a fault now; what lasts is undone after its time.
pub(crate) fn cause(sim: &Arc<Sim>, kind: FaultKind) {
    tracing::info!(?kind, "fault");
    match kind {
        FaultKind::DeletePod { namespace, pod } => {
            let Some(name) = names(sim, &namespace, &pod).into_iter().next() else {
                tracing::warn!(namespace, pod, "no pod to delete");
                return;
            };
            delete_pod(sim, &(namespace, name), None);
        }
        FaultKind::EndStreams => sim.interrupt(Interrupt::End),
        FaultKind::BreakStreams => sim.interrupt(Interrupt::Break),
        FaultKind::ApiDown { duration } => {
            sim.set_down(true);
            later(sim, duration, |sim| sim.set_down(false));
        }
        FaultKind::KubeletDown { duration } => restart_kubelet(sim, duration),
        FaultKind::RuntimeDown { duration } => {
            sim.condition.runtime_down.store(true, Ordering::Release);
            later(sim, duration, |sim| {
                sim.condition.runtime_down.store(false, Ordering::Release)
            });
        }
        FaultKind::Rotate => rotate(sim),
        FaultKind::StallFollows { duration } => stall(sim, duration),
        FaultKind::StrandFollows => {
            sim.interrupts.strandings.send_replace(());
        }
        FaultKind::MuteWatches { duration } => mute(sim, duration),
        FaultKind::SlowLogs { duration, delay } => slow(sim, duration, delay),
        FaultKind::ApiBusy { duration } => refuse(sim, Refusal::Busy, duration),
        FaultKind::LogsForbidden { duration } => refuse(sim, Refusal::Forbidden, duration),
        FaultKind::ExpireWatches => {
            sim.store.forget_history();
            sim.interrupts.watches.send_replace(Interrupt::End);
        }
    }
}

fn restart_kubelet(sim: &Arc<Sim>, away: Duration) {
    *sim.condition.kubelet.lock() = Kubelet::Down;
    sim.interrupts.follows.send_replace(Interrupt::End);
    later(sim, away, |sim| {
        *sim.condition.kubelet.lock() = Kubelet::Starting;
        later(sim, KUBELET_STARTS, |sim| *sim.condition.kubelet.lock() = Kubelet::Up);
    });
}

fn stall(sim: &Arc<Sim>, duration: Duration) {
    sim.condition.follows_stalled.send_replace(true);
    later(sim, duration, |sim| {
        sim.condition.follows_stalled.send_replace(false);
    });
}

fn mute(sim: &Arc<Sim>, duration: Duration) {
    sim.condition.watches_muted.send_replace(true);
    later(sim, duration, |sim| {
        sim.condition.watches_muted.send_replace(false);
    });
}

fn slow(sim: &Arc<Sim>, duration: Duration, delay: Duration) {
    *sim.condition.log_delay.lock() = delay;
    later(sim, duration, |sim| *sim.condition.log_delay.lock() = Duration::ZERO);
}

fn refuse(sim: &Arc<Sim>, refusal: Refusal, duration: Duration) {
    *sim.condition.refusal.lock() = Some(refusal);
    later(sim, duration, |sim| *sim.condition.refusal.lock() = None);
}

fn rotate(sim: &Sim) {
    for pod in sim.store.list().pods {
        for container in pod.containers.iter().filter(|container| container.runs()) {
            if let Some(log) = container.id.as_deref().and_then(|id| container.log(id)) {
                log.rotate();
            }
        }
    }
}

fn later(sim: &Arc<Sim>, after: Duration, act: impl FnOnce(&Arc<Sim>) + Send + 'static) {
    let own = Arc::clone(sim);
    sim.tasks.spawn(sim.stop.clone().run_until_cancelled_owned(async move {
        sleep(after).await;
        act(&own);
    }));
}

/// Returns the pods of a plan that are there and not being deleted: the one of that name, or the replicas.
fn names(sim: &Sim, namespace: &str, name: &str) -> Vec<String> {
    let listing = sim.store.list();
    let here = listing
        .pods
        .iter()
        .filter(|pod| pod.namespace == namespace && pod.deletion.is_none());
    let of_plan = here.filter(|pod| {
        let replica = pod
            .labels
            .get("pod-template-hash")
            .map(|hash| format!("{name}-{hash}-"));
        pod.name == name || replica.is_some_and(|prefix| pod.name.starts_with(&prefix))
    });
    of_plan.map(|pod| pod.name.clone()).collect()
}

/// From the kubelet's start until it knows its pods: log requests are 404 meanwhile.
const KUBELET_STARTS: Duration = Duration::from_millis(1500);
