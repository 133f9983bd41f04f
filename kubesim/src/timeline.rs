//! The timeline of a scenario: creates pods, deletes pods and injects faults, each at its time.

use std::sync::Arc;
use std::time::Duration;

use system::clock::steady;
use tokio::time::sleep_until;

use crate::faults;
use crate::node::kubelet::{create_pods, delete_pod};
use crate::scenario::{Fault, FaultKind, PodPlan, Scenario};
use crate::simulation::Simulation;

/// One event of the timeline.
enum Event {
    Create(PodPlan),
    Delete(PodPlan),
    Inject(FaultKind),
}

/// Plays a scenario to its end. Events due at the start have happened when the first await returns.
pub(crate) async fn play(sim: Arc<Simulation>, scenario: Scenario) {
    let start = steady();
    for (at, event) in schedule(scenario) {
        sleep_until(start + at).await;
        apply(&sim, event);
    }
}

fn schedule(scenario: Scenario) -> Vec<(Duration, Event)> {
    let mut events = Vec::new();
    for pod in scenario.pods {
        if let Some(at) = pod.delete_after {
            events.push((at, Event::Delete(pod.clone())));
        }
        events.push((pod.start_after, Event::Create(pod)));
    }
    events.extend(
        scenario
            .faults
            .into_iter()
            .map(|Fault { at, kind }| (at, Event::Inject(kind))),
    );
    events.sort_by_key(|(at, _)| *at);
    events
}

fn apply(sim: &Arc<Simulation>, event: Event) {
    match event {
        Event::Create(plan) => {
            if let Err(error) = create_pods(sim, &plan) {
                tracing::warn!(%error, "scenario pod create failed");
            }
        }
        Event::Delete(plan) => {
            for name in sim.pods.pods_of_plan(&plan.namespace, &plan.name) {
                delete_pod(sim, &(plan.namespace.clone(), name), None);
            }
        }
        Event::Inject(kind) => faults::inject(sim, kind),
    }
}
