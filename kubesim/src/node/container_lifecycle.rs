//! One container over its instances: it runs, exits, waits and is started again.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::log_rotation;
use crate::ids;
use crate::logs::container_log::Log;
use crate::logs::line_template::Place;
use crate::logs::writer;
use crate::scenario::ContainerPlan;
use crate::simulation::Sim;
use crate::store::pod::{Container, PodKey};

/// A container that has been started.
pub(crate) struct Running {
    pub(crate) sim: Arc<Sim>,
    pub(crate) key: PodKey,
    pub(crate) uid: String,
    pub(crate) plan: ContainerPlan,
    pub(crate) exits: mpsc::Receiver<i32>,
    pub(crate) terminate: CancellationToken,
}

impl Running {
    /// Runs the container until it has ended for good, or its pod is being terminated.
    ///
    /// When the pod is terminated the log is complete, and the state is left for the caller to change.
    pub(crate) async fn run(mut self, mut log: Arc<Log>) {
        let place = Place {
            namespace: self.key.0.clone(),
            pod: self.key.1.clone(),
            container: self.plan.name.clone(),
        };
        let mut instance = 0;
        let mut backoff = Backoff::new(self.sim.restart_backoff);
        loop {
            let began = Instant::now();
            let exit = tokio::select! {
                code = writer::run(&self.plan, &place, self.sim.seed, instance, &log) => Some(code),
                Some(code) = self.exits.recv() => Some(code),
                () = terminated(&self.terminate) => None,
            };
            log.finish();
            let Some(code) = exit else { return };
            tracing::debug!(
                namespace = self.key.0,
                pod = self.key.1,
                container = self.plan.name,
                code,
                "container exited"
            );
            self.change(|container| container.end(code, Timestamp::now()));
            if !self.plan.restart.restarts(code) {
                return;
            }
            tokio::select! {
                () = self.wait_to_restart(backoff.next(began.elapsed())) => {}
                () = self.terminate.cancelled() => return,
            }
            instance += 1;
            let (id, fresh) = new_instance(&self.sim, &self.key, &self.uid, &self.plan.name, instance);
            self.change(|container| container.begin(id, Arc::clone(&fresh), Timestamp::now()));
            log = fresh;
        }
    }

    async fn wait_to_restart(&self, backoff: Option<Duration>) {
        sleep(RESYNC).await;
        let Some(delay) = backoff else { return };
        let message = format!(
            "back-off {} restarting failed container={} pod={}_{}({})",
            go_duration(delay.as_secs()),
            self.plan.name,
            self.key.1,
            self.key.0,
            self.uid
        );
        self.change(|container| container.back_off(message));
        sleep(delay.saturating_sub(RESYNC)).await;
    }

    fn change(&self, change: impl FnOnce(&mut Container)) {
        self.sim.store.update(&self.key, &self.uid, |pod| {
            if let Some(container) = pod.container_mut(&self.plan.name) {
                change(container);
            }
        });
    }
}

/// Makes the id and the log of a new instance, which came after `number` others.
pub(crate) fn new_instance(sim: &Sim, key: &PodKey, uid: &str, container: &str, number: u32) -> (String, Arc<Log>) {
    let files = log_rotation::open(sim, key, uid, container, number);
    let log = match files {
        Some(files) => Log::on_disk(sim.rotate_bytes, files),
        None => Log::new(sim.rotate_bytes),
    };
    let (id, log) = (ids::container_id(), Arc::new(log));
    sim.ledger.open(key, container, &id, log.counts());
    (id, log)
}

/// Waits for the pod's termination and then for the process to heed it.
async fn terminated(terminate: &CancellationToken) {
    terminate.cancelled().await;
    sleep(TERM_TO_EXIT).await;
}

/// The kubelet's restart delays: at once, then 10 s, doubled each time up to 5 minutes.
struct Backoff {
    base: Duration,
    exits: u32,
}

impl Backoff {
    fn new(base: Duration) -> Self {
        Self { base, exits: 0 }
    }

    /// Returns the delay after an exit; `None` for the first. A container that ran long begins anew.
    fn next(&mut self, ran: Duration) -> Option<Duration> {
        let most = self.base * BACKOFF_MOST;
        if ran > most * 2 {
            self.exits = 0;
        }
        self.exits = self.exits.saturating_add(1);
        let doublings = self.exits.checked_sub(2)?;
        Some(self.base.saturating_mul(2_u32.saturating_pow(doublings)).min(most))
    }
}

/// Prints seconds as Go prints a duration: `10s`, `1m20s`.
fn go_duration(seconds: u64) -> String {
    if seconds < 60 {
        format!("{seconds}s")
    } else {
        format!("{}m{}s", seconds / 60, seconds % 60)
    }
}

/// Until the kubelet acts on an exit it has seen.
const RESYNC: Duration = Duration::from_secs(1);
/// How long a program takes to end after TERM.
const TERM_TO_EXIT: Duration = Duration::from_millis(200);
/// The longest delay, in first ones.
const BACKOFF_MOST: u32 = 30;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restarts_back_off_from_ten_seconds_to_five_minutes() {
        let mut backoff = Backoff::new(Duration::from_secs(10));
        let quick = Duration::from_secs(1);
        let delays: Vec<_> = (0..8)
            .map(|_| backoff.next(quick).map_or(0, |delay| delay.as_secs()))
            .collect();
        assert_eq!(delays, [0, 10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(backoff.next(Duration::from_secs(3600)), None);
        assert_eq!(go_duration(10), "10s");
        assert_eq!(go_duration(160), "2m40s");
    }
}
