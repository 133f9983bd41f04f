//! Which drains this process reads: those that the hash gives it, and whose lease it has.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures::future::join_all;
use registry::{DELIVERED_GRAIN, Drain, DrainReport, Drains, LEASE, LEASE_RENEWAL};
use tokio::{
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    config::Replica,
    drain::{self, House},
    metrics::Metrics,
    stats::Counts,
};

/// How often drains are looked at: what has changed with one is told at once, and counted.
const LOOK: Duration = Duration::from_secs(1);

/// How long before its end a lease that could not be renewed is given up.
const MARGIN: Duration = Duration::from_secs(8);

/// A drain that is being read.
struct Running {
    drain: Drain,
    counts: Arc<Counts>,
    /// Told to stop by dropping it.
    stop: DropGuard,
    task: JoinHandle<()>,
    told: Option<DrainReport>,
    counted: DrainReport,
}

/// All that are.
pub(crate) struct Fleet {
    house: Arc<House>,
    metrics: Metrics,
    running: HashMap<u32, Running>,
    /// Told to stop, and not ended yet: not to be started again before.
    stopping: HashMap<u32, JoinHandle<()>>,
    /// From when on the leases that are had are good for their time.
    leased: Instant,
    told: Instant,
    delivered: Instant,
}

impl Fleet {
    pub(crate) fn new(house: Arc<House>, metrics: Metrics) -> Self {
        let now = Instant::now();
        Self {
            house,
            metrics,
            running: HashMap::new(),
            stopping: HashMap::new(),
            leased: now,
            told: now,
            delivered: now,
        }
    }

    /// Reads what is this process's until told to stop; then ends each drain in good order and gives its lease back.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        let mut drains = self.house.registry.drains();
        let mut renewals = interval(LEASE_RENEWAL);
        let mut looks = interval(LOOK.min(self.house.config.report_every));
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = renewals.tick() => {}
                changed = drains.changed() => if changed.is_err() { break },
                _ = looks.tick() => {
                    self.look().await;
                    continue;
                }
                () = shutdown.cancelled() => break,
            }
            let known = Arc::clone(&drains.borrow_and_update());
            self.renew(&known).await;
        }
        let ids: Vec<u32> = self.running.keys().copied().collect();
        ids.iter().for_each(|id| self.stop(*id));
        join_all(self.stopping.drain().map(|(_, task)| task)).await;
        if let Err(error) = self.house.registry.release(&self.house.config.holder, &ids).await {
            tracing::warn!(%error, "leases were not given back: others wait for their end");
        }
    }

    /// Asks for the leases of what the hash gives us; starts what is had, and stops what is not any more.
    async fn renew(&mut self, known: &Drains) {
        let config = &self.house.config;
        let wanted: Vec<u32> = known
            .keys()
            .copied()
            .filter(|id| is_ours(*id, config.replica))
            .collect();
        let asked = Instant::now();
        let had: HashSet<u32> = match self.house.registry.lease(&config.holder, &wanted).await {
            Ok(had) => {
                self.leased = asked;
                had.into_iter().collect()
            }
            Err(error) => {
                let good = self.leased.elapsed() < LEASE - MARGIN;
                tracing::warn!(%error, good, "leases of drains cannot be renewed");
                let running = self.running.keys().copied();
                if good { running.collect() } else { HashSet::new() }
            }
        };
        let given_up: Vec<u32> = self.running.keys().copied().filter(|id| !had.contains(id)).collect();
        for id in given_up {
            let removed = !known.contains_key(&id);
            let drain = self.running.get(&id).map(|running| running.drain.clone());
            self.stop(id);
            if let Some(drain) = drain.filter(|_| removed) {
                self.forget(drain);
            }
        }
        self.stopping.retain(|_, task| !task.is_finished());
        for id in had {
            let Some(drain) = known.get(&id) else { continue };
            if !self.running.contains_key(&id) && !self.stopping.contains_key(&id) {
                self.start(drain.clone());
            }
        }
    }

    fn start(&mut self, drain: Drain) {
        tracing::info!(drain = drain.id, app = drain.app, "a drain is read");
        let stop = CancellationToken::new();
        let counts = Arc::new(Counts::new());
        let run = drain::run(
            Arc::clone(&self.house),
            drain.clone(),
            Arc::clone(&counts),
            stop.clone(),
        );
        let running = Running {
            counted: counts.report(),
            drain: drain.clone(),
            counts,
            stop: stop.drop_guard(),
            task: tokio::spawn(run),
            told: None,
        };
        self.running.insert(drain.id, running);
    }

    fn stop(&mut self, id: u32) {
        if let Some(mut running) = self.running.remove(&id) {
            self.metrics.count(&mut running.counted, &running.counts.report());
            drop(running.stop);
            self.stopping.insert(id, running.task);
        }
    }

    /// Forgets a removed drain's subscription, once nobody reads it.
    fn forget(&mut self, drain: Drain) {
        let (Some(task), Ok(app)) = (self.stopping.remove(&drain.id), drain.app.parse()) else {
            return;
        };
        let (id, bus) = (drain.id, Arc::clone(&self.house.bus));
        let forgetting = async move {
            let _ = task.await;
            if let Err(error) = bus.unsubscribe(&app, &drain.subscription()).await {
                tracing::warn!(drain = drain.id, %error, "a removed drain's subscription stays behind");
            }
        };
        self.stopping.insert(id, tokio::spawn(forgetting));
    }

    /// Counts what has happened, and tells what others may ask for.
    async fn look(&mut self) {
        let everything = self.told.elapsed() >= self.house.config.report_every;
        let mut states = BTreeMap::new();
        let (mut reports, mut lag) = (Vec::new(), 0);
        for (id, running) in &mut self.running {
            let report = running.counts.report();
            self.metrics.count(&mut running.counted, &report);
            *states.entry(report.state.name()).or_default() += 1;
            lag = lag.max(report.lag_seconds);
            let news = running
                .told
                .as_ref()
                .is_none_or(|told| (told.state, &told.last_error) != (report.state, &report.last_error));
            if (news || everything) && running.told.as_ref() != Some(&report) {
                running.told = Some(report.clone());
                reports.push((*id, report));
            }
        }
        self.metrics.look(&states, lag, self.house.windows.held());
        if everything {
            self.told = Instant::now();
        }
        if !reports.is_empty()
            && let Err(error) = self.house.registry.report(reports).await
        {
            tracing::debug!(%error, "how drains are cannot be told");
        }
        if self.delivered.elapsed() >= DELIVERED_GRAIN {
            self.delivered = Instant::now();
            let until = self
                .running
                .iter()
                .map(|(id, running)| (*id, running.counts.delivered_until()));
            let until: Vec<(u32, SystemTime)> = until.collect();
            if let Err(error) = self.house.registry.delivered(until).await {
                tracing::warn!(%error, "what drains have delivered cannot be noted");
            }
        }
    }
}

/// Whether the hash gives a drain to this replica: the one with the highest score, so that a replica that comes or goes moves no drain but its own.
fn is_ours(drain: u32, Replica { index, count }: Replica) -> bool {
    let score = |replica: u32| (mixed(u64::from(drain) << 32 | u64::from(replica)), replica);
    (0..count).max_by_key(|replica| score(*replica)) == Some(index)
}

/// SplitMix64's finaliser: neighbours are far apart.
fn mixed(mut number: u64) -> u64 {
    number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(drain: u32, count: u32) -> u32 {
        let owners: Vec<u32> = (0..count)
            .filter(|index| is_ours(drain, Replica { index: *index, count }))
            .collect();
        assert_eq!(owners.len(), 1, "one of them");
        owners[0]
    }

    #[test]
    fn a_replica_that_comes_or_goes_moves_no_drain_but_its_own() {
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
