//! Liveness of reading processes, and removal of the subscriptions of dead ones.
//!
//! Each reading process maintains a heartbeat: a subscription whose name contains the minute,
//! recreated every few minutes. Names suffice, because every process can list them, and the
//! emulator keeps them too.

use std::time::Duration;

use parking_lot::Mutex;
use system::collections::{HashMap, HashSet};
use tokio::sync::Mutex as AsyncMutex;

use super::{
    admin_client::Admin,
    failure::Failure,
    names::{Names, Purpose},
};
use crate::PublishTime;

/// Age after which a heartbeat is renewed.
const RENEW_MINUTES: u64 = 4;

/// Age of the newest heartbeat from which on a replica is dead.
const DEAD_MINUTES: u64 = 10;

/// Interval of sweeps.
pub(super) const SWEEP_INTERVAL: Duration = Duration::from_secs(120);

/// The subscriptions and the heartbeat of this process.
#[derive(Default)]
pub(super) struct Replicas {
    own: Mutex<HashSet<String>>,
    /// Minute of the current heartbeat.
    heartbeat: AsyncMutex<Option<u64>>,
}

impl Replicas {
    /// Registers a subscription of this process.
    pub(super) fn register(&self, subscription: &str) {
        self.own.lock().insert(subscription.to_owned());
    }

    /// Unregisters a subscription.
    pub(super) fn unregister(&self, subscription: &str) {
        self.own.lock().remove(subscription);
    }

    /// Creates or renews the heartbeat if it is missing or old. Call it before creating a
    /// subscription that other replicas' sweeps could delete.
    pub(super) async fn ensure_heartbeat(&self, admin: &Admin, names: &Names) -> Result<(), Failure> {
        let minute = minute_now();
        let mut current = self.heartbeat.lock().await;
        if current.is_some_and(|before| minute < before + RENEW_MINUTES) {
            return Ok(());
        }
        let (topic, heartbeat) = (names.heartbeat_topic(), names.heartbeat(minute));
        let created = match admin.create_temporary(&heartbeat, &topic).await {
            Err(Failure::NotFound) => {
                admin.create_topic(&topic).await?;
                admin.create_temporary(&heartbeat, &topic).await
            }
            created => created,
        };
        match created {
            Ok(()) | Err(Failure::Exists) => {}
            Err(failure) => return Err(failure),
        }
        if let Some(before) = current.replace(minute).filter(|before| *before != minute) {
            admin.delete_subscription(&names.heartbeat(before)).await?;
        }
        Ok(())
    }

    /// Renews the heartbeat if there is one.
    pub(super) async fn renew(&self, admin: &Admin, names: &Names) -> Result<(), Failure> {
        let exists = self.heartbeat.lock().await.is_some();
        if exists {
            self.ensure_heartbeat(admin, names).await
        } else {
            Ok(())
        }
    }

    /// Deletes the subscriptions of dead replicas and of this replica's previous processes. Returns
    /// their number.
    pub(super) async fn sweep(&self, admin: &Admin, names: &Names) -> Result<usize, Failure> {
        let all = admin.list_subscriptions(&names.project()).await?;
        let heartbeat = *self.heartbeat.lock().await;
        let orphans = {
            let own = self.own.lock();
            orphaned(&all, names, &own, heartbeat, minute_now())
        };
        for subscription in &orphans {
            admin.delete_subscription(subscription).await?;
        }
        if !orphans.is_empty() {
            tracing::info!(subscriptions = orphans.len(), "orphaned subscriptions removed");
        }
        Ok(orphans.len())
    }

    /// Deletes the heartbeat when the process ends.
    pub(super) async fn deregister(&self, admin: &Admin, names: &Names) -> Result<(), Failure> {
        match self.heartbeat.lock().await.take() {
            Some(minute) => admin.delete_subscription(&names.heartbeat(minute)).await,
            None => Ok(()),
        }
    }
}

/// Returns the subscriptions that no live process owns.
fn orphaned(all: &[String], names: &Names, own: &HashSet<String>, heartbeat: Option<u64>, now: u64) -> Vec<String> {
    let used: Vec<(&String, Purpose)> = all
        .iter()
        .filter_map(|name| names.purpose(name).map(|purpose| (name, purpose)))
        .collect();
    let mut heartbeats: HashMap<&str, u64> = HashMap::default();
    for (_, purpose) in &used {
        if let Purpose::Heartbeat { replica, minute } = purpose {
            let newest = heartbeats.entry(replica).or_default();
            *newest = (*newest).max(*minute);
        }
    }
    let is_alive = |replica: &str| {
        heartbeats
            .get(replica)
            .is_some_and(|minute| now <= minute + DEAD_MINUTES)
    };
    let is_orphaned = |name: &String, purpose: &Purpose| match purpose {
        Purpose::Tail { replica } if replica == names.replica() => !own.contains(name),
        Purpose::Tail { replica } => !is_alive(replica),
        Purpose::Heartbeat { replica, minute } if replica == names.replica() => heartbeat != Some(*minute),
        Purpose::Heartbeat { replica, .. } => !is_alive(replica),
    };
    used.iter()
        .filter(|(name, purpose)| is_orphaned(name, purpose))
        .map(|(name, _)| (*name).clone())
        .collect()
}

fn minute_now() -> u64 {
    PublishTime::now().0 / 60_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sweep_removes_only_subscriptions_of_dead_processes() {
        let (me, other, dead, silent) = (
            Names::new("p", "me"),
            Names::new("p", "other"),
            Names::new("p", "dead"),
            Names::new("p", "silent"),
        );
        let own_subscription = me.new_tail();
        let keep = [
            own_subscription.clone(),
            me.heartbeat(1000),
            other.new_tail(),
            other.heartbeat(995),
            other.heartbeat(991),
        ];
        let orphans = [
            me.new_tail(),
            me.heartbeat(970),
            dead.new_tail(),
            dead.heartbeat(989),
            silent.new_tail(),
        ];
        let unrelated = ["projects/p/subscriptions/theirs".to_owned()];
        let all = [&keep[..], &orphans, &unrelated].concat();
        let own = HashSet::from_iter([own_subscription]);
        assert_eq!(orphaned(&all, &me, &own, Some(1000), 1000), orphans);
    }
}
