//! Liveness of reading processes, and removal of the subscriptions of dead ones.
//!
//! Each reading process maintains a heartbeat: a subscription whose name contains the minute,
//! recreated every few minutes. Names suffice, because every process can list them, and the
//! emulator keeps them too. Whether a replica is alive is judged by whether its heartbeats change,
//! never by comparing its clock with another.

use std::time::Duration;

use parking_lot::Mutex;
use system::{
    clock::{Instant, since, steady},
    collections::{HashMap, HashSet},
};
use tokio::sync::Mutex as AsyncMutex;

use super::{
    admin_client::Admin,
    failure::Failure,
    names::{Names, Purpose},
};
use crate::PublishTime;

/// Age after which a heartbeat is renewed.
const RENEW_AFTER: Duration = Duration::from_secs(4 * 60);

/// A replica whose heartbeats have not changed for this long is dead.
const DEAD_AFTER: Duration = Duration::from_secs(10 * 60);

/// Interval of sweeps.
pub(super) const SWEEP_INTERVAL: Duration = Duration::from_secs(120);

/// The subscriptions and the heartbeat of this process.
#[derive(Default)]
pub(super) struct Replicas {
    own: Mutex<HashSet<String>>,
    heartbeat: AsyncMutex<Option<Heartbeat>>,
    observed: Mutex<Observed>,
}

/// The current heartbeat of this process.
#[derive(Clone, Copy)]
struct Heartbeat {
    /// The minute in its name.
    minute: u64,
    created: Instant,
}

/// The newest heartbeat of each other replica, and when it was first seen.
type Observed = HashMap<String, (u64, Instant)>;

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
        let mut current = self.heartbeat.lock().await;
        if current.is_some_and(|before| since(before.created) < RENEW_AFTER) {
            return Ok(());
        }
        // A new name, even if this machine's clock was set back.
        let minute = minute_now().max(current.map_or(0, |before| before.minute + 1));
        let created_at = steady();
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
        let renewed = Heartbeat {
            minute,
            created: created_at,
        };
        if let Some(before) = current.replace(renewed) {
            admin.delete_subscription(&names.heartbeat(before.minute)).await?;
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
        let heartbeat = self.heartbeat.lock().await.map(|heartbeat| heartbeat.minute);
        let orphans = {
            let (own, mut observed) = (self.own.lock(), self.observed.lock());
            orphaned(&all, names, &own, heartbeat, &mut observed, steady())
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
            Some(heartbeat) => admin.delete_subscription(&names.heartbeat(heartbeat.minute)).await,
            None => Ok(()),
        }
    }
}

/// Returns the subscriptions that no live process owns, and records which heartbeats there are.
fn orphaned(
    all: &[String],
    names: &Names,
    own: &HashSet<String>,
    heartbeat: Option<u64>,
    observed: &mut Observed,
    now: Instant,
) -> Vec<String> {
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
    observed.retain(|replica, _| heartbeats.contains_key(replica.as_str()));
    for (replica, newest) in heartbeats {
        let seen = observed.entry(replica.to_owned()).or_insert((newest, now));
        if seen.0 != newest {
            *seen = (newest, now);
        }
    }
    let is_alive = |replica: &str| {
        let seen = observed.get(replica);
        seen.is_some_and(|(_, first_seen)| now.saturating_duration_since(*first_seen) <= DEAD_AFTER)
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

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn a_sweep_removes_only_subscriptions_of_dead_processes() {
        let (me, other, dead, silent) = (
            Names::new("p", "me"),
            Names::new("p", "other"),
            Names::new("p", "dead"),
            Names::new("p", "silent"),
        );
        let own_subscription = me.new_tail();
        let keep = [own_subscription.clone(), me.heartbeat(1000), other.new_tail()];
        let beats = [other.heartbeat(995), other.heartbeat(991)];
        let (of_dead, orphans) = (
            [dead.new_tail(), dead.heartbeat(2_000_000)],
            [me.new_tail(), me.heartbeat(970), silent.new_tail()],
        );
        let unrelated = ["projects/p/subscriptions/theirs".to_owned()];
        let own = HashSet::from_iter([own_subscription]);
        let (mut observed, start) = (Observed::default(), steady());
        let mut sweep = |other: &[String], minutes: u32| {
            let all = [&keep[..], other, &of_dead, &orphans, &unrelated].concat();
            orphaned(&all, &me, &own, Some(1000), &mut observed, start + MINUTE * minutes)
        };
        assert_eq!(sweep(&beats, 0), orphans, "nothing is known of the others yet");
        assert_eq!(sweep(&beats[..1], 10), orphans);
        // The clock of the other replica was set back; its heartbeat changed nevertheless.
        let renewed = [other.heartbeat(12)];
        assert_eq!(sweep(&renewed, 11), [&of_dead[..], &orphans].concat());
        assert_eq!(sweep(&renewed, 21), [&of_dead[..], &orphans].concat());
    }
}
