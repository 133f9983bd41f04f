//! Faults: what each kind does to the simulation, and how it ends.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::sleep;

use crate::logs::cri_files::CriLogFiles;
use crate::node::kubelet::delete_pod;
use crate::scenario::FaultKind;
use crate::simulation::{Interrupt, KubeletState, Refusal, Simulation};

/// Injects a fault now; faults with a duration end by themselves.
pub(crate) fn inject(sim: &Arc<Simulation>, kind: FaultKind) {
    tracing::debug!(?kind, "fault injected");
    sim.machine.run(|| inject_on_node(sim, kind));
}

fn inject_on_node(sim: &Arc<Simulation>, kind: FaultKind) {
    match kind {
        FaultKind::DeletePod { namespace, pod } => {
            let Some(name) = sim.pods.pods_of_plan(&namespace, &pod).into_iter().next() else {
                tracing::warn!(namespace, pod, "pod to delete not found");
                return;
            };
            delete_pod(sim, &(namespace, name), None);
        }
        FaultKind::EndStreams => sim.interrupt(Interrupt::End),
        FaultKind::BreakStreams => sim.interrupt(Interrupt::Break),
        FaultKind::ApiDown { duration } => {
            sim.set_api_down(true);
            after(sim, duration, |sim| sim.set_api_down(false));
        }
        FaultKind::KubeletDown { duration } => restart_kubelet(sim, duration),
        FaultKind::RuntimeDown { duration } => {
            sim.state.runtime_down.store(true, Ordering::Release);
            after(sim, duration, |sim| {
                sim.state.runtime_down.store(false, Ordering::Release)
            });
        }
        FaultKind::Rotate => rotate_logs(sim),
        FaultKind::StallFollows { duration } => stall_follows(sim, duration),
        FaultKind::StrandFollows => {
            sim.interrupts.strand.send_replace(());
        }
        FaultKind::MuteWatches { duration } => mute_watches(sim, duration),
        FaultKind::SlowLogs { duration, delay } => slow_logs(sim, duration, delay),
        FaultKind::ApiBusy { duration } => refuse_requests(sim, Refusal::Busy, duration),
        FaultKind::LogsForbidden { duration } => refuse_requests(sim, Refusal::Forbidden, duration),
        FaultKind::ExpireWatches => {
            sim.pods.clear_history();
            sim.interrupts.watches.send_replace(Interrupt::End);
        }
        FaultKind::StallRequests { duration } => stall_requests(sim, duration),
        FaultKind::StrandOnRotation { duration } => strand_on_rotation(sim, duration),
        FaultKind::StatusLag { duration, delay } => delay_reports(sim, duration, delay),
        FaultKind::StepClock { by } => sim.clock.step(by),
        FaultKind::FreezeClock { duration } => freeze_clock(sim, duration),
        FaultKind::DelayWrites { duration, delay } => delay_writes(sim, duration, delay),
        FaultKind::SetUtcOffset { offset } => sim.clock.set_utc_offset(offset),
        FaultKind::RemoveLogFiles { namespace, pod } => {
            for_log_files(sim, &namespace, &pod, CriLogFiles::remove_current);
        }
        FaultKind::TruncateLogFiles { namespace, pod } => {
            for_log_files(sim, &namespace, &pod, CriLogFiles::truncate);
        }
    }
}

fn restart_kubelet(sim: &Arc<Simulation>, duration: Duration) {
    *sim.state.kubelet.lock() = KubeletState::Down;
    sim.interrupts.follows.send_replace(Interrupt::End);
    after(sim, duration, |sim| {
        *sim.state.kubelet.lock() = KubeletState::Starting;
        after(sim, KUBELET_START_TIME, |sim| {
            *sim.state.kubelet.lock() = KubeletState::Up
        });
    });
}

fn stall_follows(sim: &Arc<Simulation>, duration: Duration) {
    sim.state.follows_stalled.send_replace(true);
    after(sim, duration, |sim| {
        sim.state.follows_stalled.send_replace(false);
    });
}

fn mute_watches(sim: &Arc<Simulation>, duration: Duration) {
    sim.state.watches_muted.send_replace(true);
    after(sim, duration, |sim| {
        sim.state.watches_muted.send_replace(false);
    });
}

fn slow_logs(sim: &Arc<Simulation>, duration: Duration, delay: Duration) {
    *sim.state.log_delay.lock() = delay;
    after(sim, duration, |sim| *sim.state.log_delay.lock() = Duration::ZERO);
}

fn refuse_requests(sim: &Arc<Simulation>, refusal: Refusal, duration: Duration) {
    *sim.state.refusal.lock() = Some(refusal);
    after(sim, duration, |sim| *sim.state.refusal.lock() = None);
}

fn stall_requests(sim: &Arc<Simulation>, duration: Duration) {
    sim.state.requests_stalled.send_replace(true);
    after(sim, duration, |sim| {
        sim.state.requests_stalled.send_replace(false);
    });
}

fn strand_on_rotation(sim: &Arc<Simulation>, duration: Duration) {
    sim.log_settings.strand_on_rotation.store(true, Ordering::Relaxed);
    after(sim, duration, |sim| {
        sim.log_settings.strand_on_rotation.store(false, Ordering::Relaxed);
    });
}

fn delay_reports(sim: &Arc<Simulation>, duration: Duration, delay: Duration) {
    sim.pods.set_report_delay(delay);
    after(sim, duration, |sim| sim.pods.set_report_delay(Duration::ZERO));
}

fn freeze_clock(sim: &Arc<Simulation>, duration: Duration) {
    sim.clock.freeze(true);
    after(sim, duration, |sim| sim.clock.freeze(false));
}

fn delay_writes(sim: &Arc<Simulation>, duration: Duration, delay: Duration) {
    sim.clock.set_write_delay(delay);
    after(sim, duration, |sim| sim.clock.set_write_delay(Duration::ZERO));
}

/// Changes the current log files of a pod's running containers by hand.
fn for_log_files(sim: &Simulation, namespace: &str, pod: &str, change: fn(&CriLogFiles) -> io::Result<()>) {
    let name = sim.pods.pods_of_plan(namespace, pod).into_iter().next();
    let pod = name.and_then(|name| sim.pods.get_on_node(&(namespace.to_owned(), name)));
    let Some(pod) = pod else {
        tracing::warn!(namespace, "pod whose log files to change not found");
        return;
    };
    for container in pod.containers.iter().filter(|container| container.is_running()) {
        let log = container.id.as_deref().and_then(|id| container.log(id));
        if let Some(files) = log.as_ref().and_then(|log| log.files())
            && let Err(error) = change(files)
        {
            tracing::warn!(%error, pod = pod.name, container = container.name, "log file change failed");
        }
    }
}

fn rotate_logs(sim: &Simulation) {
    for pod in sim.pods.list_on_node() {
        for container in pod.containers.iter().filter(|container| container.is_running()) {
            if let Some(log) = container.id.as_deref().and_then(|id| container.log(id)) {
                log.rotate();
            }
        }
    }
}

/// Runs `action` after a delay unless the simulation ends first.
fn after(sim: &Arc<Simulation>, delay: Duration, action: impl FnOnce(&Arc<Simulation>) + Send + 'static) {
    let owned = Arc::clone(sim);
    sim.spawn(async move {
        sleep(delay).await;
        action(&owned);
    });
}

/// Time from the kubelet's start until its pods are loaded; log requests return 404 meanwhile.
const KUBELET_START_TIME: Duration = Duration::from_millis(1500);
