//! Leases, delivery times and reports: the state of drains that changes while they run.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};

use crate::drain::{DrainReport, Drains};

/// The interval at which a holder renews its leases.
pub const LEASE_RENEW_INTERVAL: Duration = Duration::from_secs(10);

/// The validity of a lease from the time of the request: three renewals, so that a late one is
/// harmless.
pub const LEASE_DURATION: Duration = Duration::from_secs(30);

/// The minimum interval between two writes of a drain's last delivery time.
pub const DELIVERED_INTERVAL: Duration = Duration::from_secs(60);

/// The maximum clock difference between two machines.
const SKEW: Duration = Duration::from_secs(60);

/// Leases, delivery times and reports, by drain.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Leases {
    leases: BTreeMap<u32, Lease>,
    /// Milliseconds since 1970.
    delivered: BTreeMap<u32, u64>,
    #[serde(default)]
    reports: BTreeMap<u32, DrainReport>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Lease {
    holder: String,
    /// Milliseconds since 1970.
    until: u64,
}

impl Leases {
    /// Deletes entries of removed drains and reports whether there were any. A valid lease stays
    /// even if its drain is unknown, because another process may just have added it.
    pub(crate) fn remove_stale(&mut self, drains: &Drains, now: SystemTime) -> bool {
        let before = self.leases.len() + self.delivered.len() + self.reports.len();
        let now = millis(now);
        self.leases
            .retain(|id, lease| drains.contains_key(id) || now < lease.until);
        self.delivered.retain(|id, _| drains.contains_key(id));
        self.reports.retain(|id, _| drains.contains_key(id));
        before != self.leases.len() + self.delivered.len() + self.reports.len()
    }

    /// Acquires or renews the leases that are free or belong to `holder`.
    pub(crate) fn acquire(&mut self, holder: &str, wanted: &[u32], drains: &Drains, now: SystemTime) -> Vec<u32> {
        let (now, until, beyond) = (
            millis(now),
            millis(now + LEASE_DURATION),
            millis(now + LEASE_DURATION + SKEW),
        );
        let free = |lease: &Lease| {
            // A lease far in the future is from a clock that was set back later; treating it as
            // expired keeps the drain from standing still. `SKEW` tolerates a holder whose clock is
            // ahead.
            let expired = lease.until <= now || lease.until > beyond;
            lease.holder == holder || expired
        };
        let mut acquired = Vec::new();
        for id in wanted {
            if drains.contains_key(id) && self.leases.get(id).is_none_or(free) {
                let lease = Lease {
                    holder: holder.to_owned(),
                    until,
                };
                self.leases.insert(*id, lease);
                acquired.push(*id);
            }
        }
        acquired
    }

    /// Releases the leases of `holder`.
    pub(crate) fn release(&mut self, holder: &str, drains: &[u32]) {
        self.leases
            .retain(|id, lease| lease.holder != holder || !drains.contains(id));
    }

    /// Stores a report and returns whether it differs from the last one.
    pub(crate) fn record_report(&mut self, drain: u32, report: DrainReport) -> bool {
        let changed = self.reports.get(&drain) != Some(&report);
        self.reports.insert(drain, report);
        changed
    }

    pub(crate) fn report(&self, drain: u32) -> Option<DrainReport> {
        self.reports.get(&drain).cloned()
    }

    /// Stores a delivery time and returns whether it must be written.
    pub(crate) fn record_delivered(&mut self, drain: u32, at: SystemTime) -> bool {
        let at = millis(at);
        let before = self.delivered.get(&drain).copied();
        let interval = u64::try_from(DELIVERED_INTERVAL.as_millis()).unwrap_or(u64::MAX);
        let due = before.is_none_or(|before| at >= before.saturating_add(interval));
        if due {
            self.delivered.insert(drain, at);
        }
        due
    }

    pub(crate) fn last_delivered(&self, drain: u32) -> Option<SystemTime> {
        let millis = self.delivered.get(&drain)?;
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(*millis))
    }
}

fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drain::Drain;

    fn drains(ids: &[u32]) -> Drains {
        let drain = |id| Drain {
            id,
            app: "shop".into(),
            token: "d.x".into(),
            url: "https://example.com/".into(),
        };
        ids.iter().map(|id| (*id, drain(*id))).collect()
    }

    #[test]
    fn a_lease_is_exclusive_until_it_expires_or_is_released() {
        let (drains, mut leases) = (drains(&[1, 2]), Leases::default());
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(
            leases.acquire("a", &[1, 2, 3], &drains, at(0)),
            [1, 2],
            "drain 3 does not exist"
        );
        assert_eq!(leases.acquire("b", &[1, 2], &drains, at(29)), [0u32; 0]);
        assert_eq!(leases.acquire("a", &[1], &drains, at(29)), [1], "renewed");
        assert_eq!(
            leases.acquire("b", &[1, 2], &drains, at(30)),
            [2],
            "1 was renewed, 2 expired"
        );
        leases.release("b", &[1, 2]);
        assert_eq!(
            leases.acquire("a", &[1, 2], &drains, at(31)),
            [1, 2],
            "b does not hold the lease of 1 and cannot release it"
        );
        assert_eq!(
            leases.acquire("b", &[1], &drains, start - SKEW),
            [1],
            "a lease from a clock that was set back counts as expired"
        );
    }

    #[test]
    fn delivery_times_are_written_once_a_minute_and_deleted_with_their_drain() {
        let mut leases = Leases::default();
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        assert!(leases.record_delivered(1, at(100)));
        assert!(!leases.record_delivered(1, at(159)));
        assert_eq!(leases.last_delivered(1), Some(at(100)));
        assert!(leases.record_delivered(1, at(160)));
        assert!(leases.remove_stale(&drains(&[2]), at(200)));
        assert_eq!(leases.last_delivered(1), None);
    }
}
