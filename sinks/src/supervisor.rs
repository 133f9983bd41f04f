//! Selects the drains of this process, by hash and lease, and runs each as a task.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bus::rendezvous;
use futures::future::join_all;
use registry::{DELIVERED_INTERVAL, Drain, DrainReport, Drains, LEASE_DURATION, LEASE_RENEW_INTERVAL};
use system::{
    clock,
    collections::{HashMap, HashSet},
    task,
};
use tokio::{
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{config::Replica, context::DrainContext, drain, stats::DrainStats};

/// The interval at which reports are compared and gauges are set. Changes of state are reported at
/// once.
const REPORT_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// How long before its expiry a lease that cannot be renewed is given up.
const LEASE_MARGIN: Duration = Duration::from_secs(8);

/// A drain that runs in this process.
struct Running {
    drain: Drain,
    stats: Arc<DrainStats>,
    /// Stops the task when dropped.
    stop: DropGuard,
    task: JoinHandle<()>,
    /// The last report to the registry.
    reported: Option<DrainReport>,
    /// Whether the registry knows that the drain runs.
    is_recorded: bool,
}

/// The drains of this process.
pub(crate) struct Supervisor {
    context: Arc<DrainContext>,
    running: HashMap<u32, Running>,
    /// Tasks that are stopping; a drain is not started again before its task has ended.
    stopping: HashMap<u32, JoinHandle<()>>,
    /// The time of the last successful renewal.
    renewed: Instant,
    reported: Instant,
    recorded: Instant,
}

impl Supervisor {
    pub(crate) fn new(context: Arc<DrainContext>) -> Self {
        let now = clock::steady();
        Self {
            context,
            running: HashMap::default(),
            stopping: HashMap::default(),
            renewed: now,
            reported: now,
            recorded: now,
        }
    }

    /// Runs this process's drains until shutdown, then stops each and releases its lease.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        let mut drains = self.context.registry.drains();
        let mut renewals = interval(LEASE_RENEW_INTERVAL);
        let mut reports = interval(REPORT_CHECK_INTERVAL.min(self.context.config.report_interval));
        reports.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = renewals.tick() => {}
                changed = drains.changed() => if changed.is_err() { break },
                _ = reports.tick() => {
                    self.report().await;
                    continue;
                }
                () = sleep_until(self.expiry()), if !self.running.is_empty() => {
                    self.stop_all();
                    continue;
                }
                () = shutdown.cancelled() => break,
            }
            let current = Arc::clone(&drains.borrow_and_update());
            self.renew(&current).await;
        }
        let ids: Vec<u32> = self.running.keys().copied().collect();
        ids.iter().for_each(|id| self.stop(*id));
        join_all(self.stopping.drain().map(|(_, task)| task)).await;
        let registry = &self.context.registry;
        if let Err(error) = registry.release_leases(&self.context.config.holder, &ids).await {
            tracing::warn!(%error, "drain leases not released, they expire by themselves");
        }
    }

    /// Renews the leases of the drains that the hash assigns to this replica, starts the drains
    /// whose lease is new, and stops those whose lease is lost.
    async fn renew(&mut self, drains: &Drains) {
        let context = Arc::clone(&self.context);
        let config = &context.config;
        let wanted: Vec<u32> = drains
            .keys()
            .copied()
            .filter(|id| is_assigned(*id, config.replica))
            .collect();
        let requested = clock::steady();
        let acquiring = context.registry.acquire_leases(&config.holder, &wanted);
        let leased: HashSet<u32> = match self.within_leases(acquiring).await {
            Some(Ok(leased)) => {
                self.renewed = requested;
                leased.into_iter().collect()
            }
            Some(Err(error)) => {
                tracing::warn!(%error, "drain lease renewal failed");
                self.running.keys().copied().collect()
            }
            // All drains were stopped.
            None => HashSet::default(),
        };
        let lost: Vec<u32> = self.running.keys().copied().filter(|id| !leased.contains(id)).collect();
        for id in lost {
            let is_removed = !drains.contains_key(&id);
            let drain = self.running.get(&id).map(|running| running.drain.clone());
            self.stop(id);
            if let Some(drain) = drain.filter(|_| is_removed) {
                self.unsubscribe(drain);
            }
        }
        self.stopping.retain(|_, task| !task.is_finished());
        for id in leased {
            let Some(drain) = drains.get(&id) else { continue };
            if !self.running.contains_key(&id) && !self.stopping.contains_key(&id) {
                self.start(drain.clone());
            }
        }
    }

    /// Awaits a call of the registry. If the leases expire meanwhile, stops all drains and gives the
    /// call up.
    async fn within_leases<T>(&mut self, call: impl Future<Output = T>) -> Option<T> {
        if self.running.is_empty() {
            // Nothing runs, so the call may take its time, but not forever.
            return tokio::time::timeout(LEASE_DURATION, call).await.ok();
        }
        let called = tokio::time::timeout_at(self.expiry(), call).await.ok();
        if called.is_none() {
            self.stop_all();
        }
        called
    }

    /// When the leases of the running drains must be given up.
    fn expiry(&self) -> Instant {
        self.renewed + (LEASE_DURATION - LEASE_MARGIN)
    }

    /// Stops all drains, whose leases could not be renewed in time.
    fn stop_all(&mut self) {
        tracing::warn!(drains = self.running.len(), "drain leases expired, stopping the drains");
        let ids: Vec<u32> = self.running.keys().copied().collect();
        ids.into_iter().for_each(|id| self.stop(id));
    }

    fn start(&mut self, drain: Drain) {
        tracing::info!(drain = drain.id, app = drain.app, "drain started");
        let stop = CancellationToken::new();
        let stats = Arc::new(DrainStats::new(self.context.metrics.clone()));
        let run = drain::run(
            Arc::clone(&self.context),
            drain.clone(),
            Arc::clone(&stats),
            stop.clone(),
        );
        let running = Running {
            drain: drain.clone(),
            stats,
            stop: stop.drop_guard(),
            task: task::spawn(run),
            reported: None,
            is_recorded: false,
        };
        self.running.insert(drain.id, running);
    }

    fn stop(&mut self, id: u32) {
        if let Some(running) = self.running.remove(&id) {
            tracing::info!(drain = id, app = running.drain.app, "drain stopped");
            drop(running.stop);
            self.stopping.insert(id, running.task);
        }
    }

    /// Deletes the subscription of a removed drain after its task has ended.
    fn unsubscribe(&mut self, drain: Drain) {
        let (Some(task), Ok(app)) = (self.stopping.remove(&drain.id), drain.app.parse()) else {
            return;
        };
        let (id, bus) = (drain.id, Arc::clone(&self.context.bus));
        let unsubscribing = async move {
            let _ = task.await;
            if let Err(error) = bus.unsubscribe(&app, &drain.subscription()).await {
                tracing::warn!(drain = drain.id, %error, "subscription of a removed drain not deleted");
            }
        };
        self.stopping.insert(id, task::spawn(unsubscribing));
    }

    /// Sets the gauges and sends reports and delivery times to the registry.
    async fn report(&mut self) {
        let is_due = clock::since(self.reported) >= self.context.config.report_interval;
        let mut states = BTreeMap::new();
        let (mut reports, mut lag) = (Vec::new(), 0);
        for (id, running) in &mut self.running {
            let report = running.stats.report();
            *states.entry(report.state.as_str()).or_default() += 1;
            lag = lag.max(report.lag_seconds);
            let has_new_state = running
                .reported
                .as_ref()
                .is_none_or(|reported| (reported.state, &reported.last_error) != (report.state, &report.last_error));
            if (has_new_state || is_due) && running.reported.as_ref() != Some(&report) {
                running.reported = Some(report.clone());
                reports.push((*id, report));
            }
        }
        self.context
            .metrics
            .set_gauges(&states, lag, self.context.budget.used());
        if is_due {
            self.reported = clock::steady();
        }
        let context = Arc::clone(&self.context);
        if !reports.is_empty()
            && let Some(Err(error)) = self.within_leases(context.registry.record_reports(reports)).await
        {
            tracing::debug!(%error, "drain reports not recorded");
        }
        // At once for a new drain: the next process must know that this one may hold its lines.
        let has_new = self.running.values().any(|running| !running.is_recorded);
        if has_new || clock::since(self.recorded) >= DELIVERED_INTERVAL {
            self.recorded = clock::steady();
            let delivered: Vec<(u32, SystemTime)> = self
                .running
                .iter()
                .map(|(id, running)| (*id, running.stats.delivered_until()))
                .collect();
            let recorded = self.within_leases(context.registry.record_delivered(delivered)).await;
            if let Some(Err(error)) = &recorded {
                tracing::warn!(%error, "drain delivery times not recorded");
            }
            let running = self.running.values_mut();
            running.for_each(|running| running.is_recorded |= matches!(recorded, Some(Ok(()))));
        }
    }
}

/// Returns whether a drain belongs to this replica. Adding or removing a replica moves only that
/// replica's drains.
fn is_assigned(drain: u32, Replica { index, count }: Replica) -> bool {
    rendezvous::owner(drain, 0..count) == Some(index as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(drain: u32, count: u32) -> u32 {
        let owners: Vec<u32> = (0..count)
            .filter(|index| is_assigned(drain, Replica { index: *index, count }))
            .collect();
        assert_eq!(owners.len(), 1, "exactly one replica");
        owners[0]
    }

    #[test]
    fn adding_or_removing_a_replica_moves_only_its_own_drains() {
        let drains = (1..10_000u32).map(|n| n.wrapping_mul(2_654_435_761) >> 1);
        let mut each = [0; 3];
        for drain in drains {
            let (three, two) = (owner(drain, 3), owner(drain, 2));
            each[three as usize] += 1;
            assert!(three == two || three == 2, "{drain}");
        }
        assert!(each.iter().all(|count| (3000..3700).contains(count)), "{each:?}");
    }
}
