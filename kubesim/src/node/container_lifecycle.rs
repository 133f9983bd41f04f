//! The life of a container: it runs, exits, waits and restarts.

use std::sync::Arc;
use std::time::Duration;

use system::clock::{since, steady};
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::log_files;
use crate::ids;
use crate::logs::container_log::ContainerLog;
use crate::logs::line_template::ContainerIdentity;
use crate::logs::writer;
use crate::scenario::ContainerPlan;
use crate::simulation::Simulation;
use crate::store::pod::{Container, PodKey};

/// Runs one started container over its restarts.
pub(crate) struct ContainerRunner {
    pub(crate) sim: Arc<Simulation>,
    pub(crate) key: PodKey,
    pub(crate) uid: String,
    pub(crate) plan: ContainerPlan,
    pub(crate) exits: mpsc::Receiver<i32>,
    pub(crate) terminate: CancellationToken,
}

impl ContainerRunner {
    /// Runs the container until it ends without a restart or its pod is terminated.
    ///
    /// On termination of the pod the log is complete and the caller updates the container's state.
    pub(crate) async fn run(mut self, mut log: Arc<ContainerLog>) {
        let identity = ContainerIdentity {
            namespace: self.key.0.clone(),
            pod: self.key.1.clone(),
            container: self.plan.name.clone(),
        };
        let mut instance = 0;
        let mut backoff = RestartBackoff::new(self.sim.restart_backoff);
        loop {
            let started = steady();
            let exit = tokio::select! {
                biased;
                code = writer::write_output(&self.plan, &identity, self.sim.seed, instance, &log) => Some(code),
                Some(code) = self.exits.recv() => Some(code),
                () = exit_after_term(&self.terminate) => None,
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
            let now = self.sim.clock.now();
            self.update(|container| container.terminate(code, now));
            if !self.plan.restart.restarts(code) {
                return;
            }
            tokio::select! {
                biased;
                () = self.wait_to_restart(backoff.next(since(started))) => {}
                () = self.terminate.cancelled() => return,
            }
            instance += 1;
            let (id, new_log) = new_instance(&self.sim, &self.key, &self.uid, &self.plan.name, instance);
            let now = self.sim.clock.now();
            self.update(|container| container.start(id, Arc::clone(&new_log), now));
            log = new_log;
        }
    }

    async fn wait_to_restart(&self, backoff: Option<Duration>) {
        sleep(REACTION_DELAY).await;
        let Some(delay) = backoff else { return };
        let message = format!(
            "back-off {} restarting failed container={} pod={}_{}({})",
            go_duration(delay.as_secs()),
            self.plan.name,
            self.key.1,
            self.key.0,
            self.uid
        );
        self.update(|container| container.set_backoff(message));
        sleep(delay.saturating_sub(REACTION_DELAY)).await;
    }

    fn update(&self, change: impl FnOnce(&mut Container)) {
        self.sim.pods.update(&self.key, &self.uid, |pod| {
            if let Some(container) = pod.container_mut(&self.plan.name) {
                change(container);
            }
        });
    }
}

/// Creates the ID and the log of instance `number`, counted from 0.
pub(crate) fn new_instance(
    sim: &Simulation,
    key: &PodKey,
    uid: &str,
    container: &str,
    number: u32,
) -> (String, Arc<ContainerLog>) {
    let files = log_files::create_file(sim, key, uid, container, number);
    let settings = sim.log_settings.clone();
    let log = match files {
        Some(files) => ContainerLog::on_disk(settings, files),
        None => ContainerLog::new(settings),
    };
    let (id, log) = (ids::container_id(), Arc::new(log));
    sim.ledger.add(key, container, &id, log.counts());
    (id, log)
}

/// Waits for the pod's termination, then for the process to handle SIGTERM.
async fn exit_after_term(terminate: &CancellationToken) {
    terminate.cancelled().await;
    sleep(TERM_DELAY).await;
}

/// The kubelet's restart backoff: no delay, then 10 s, doubling up to 5 minutes.
struct RestartBackoff {
    base: Duration,
    exits: u32,
}

impl RestartBackoff {
    fn new(base: Duration) -> Self {
        Self { base, exits: 0 }
    }

    /// Returns the delay after an exit; `None` for the first. A long run resets the backoff.
    fn next(&mut self, ran: Duration) -> Option<Duration> {
        let max = self.base * MAX_BACKOFF_FACTOR;
        if ran > max * 2 {
            self.exits = 0;
        }
        self.exits = self.exits.saturating_add(1);
        let doublings = self.exits.checked_sub(2)?;
        Some(self.base.saturating_mul(2_u32.saturating_pow(doublings)).min(max))
    }
}

/// Formats seconds as a Go duration: `10s`, `1m20s`.
fn go_duration(seconds: u64) -> String {
    if seconds < 60 {
        format!("{seconds}s")
    } else {
        format!("{}m{}s", seconds / 60, seconds % 60)
    }
}

/// Time until the kubelet reacts to an exit.
const REACTION_DELAY: Duration = Duration::from_secs(1);
/// Time from SIGTERM to the exit of a program.
const TERM_DELAY: Duration = Duration::from_millis(200);
/// Maximum delay, as a multiple of the first.
const MAX_BACKOFF_FACTOR: u32 = 30;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restarts_back_off_from_ten_seconds_to_five_minutes() {
        let mut backoff = RestartBackoff::new(Duration::from_secs(10));
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
