//! Leases, delivery times and reports: the state of drains that changes while they run.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};
use system::clock::Instant;

use crate::drain::{DrainReport, Drains};

/// The interval at which a holder renews its leases.
pub const LEASE_RENEW_INTERVAL: Duration = Duration::from_secs(10);

/// The validity of a lease from the time of the request: three renewals, so that a late one is
/// harmless.
pub const LEASE_DURATION: Duration = Duration::from_secs(30);

/// The minimum interval between two writes of a drain's last delivery time.
pub const DELIVERED_INTERVAL: Duration = Duration::from_secs(60);

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

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Lease {
    holder: String,
    /// Milliseconds since 1970, on the holder's clock. Larger with each renewal; other processes
    /// only see that it changes.
    until: u64,
}

/// The leases as this process has seen them. A lease is valid until it has not been renewed for
/// [`LEASE_DURATION`] under the eyes of this process: clocks of two machines are never compared.
#[derive(Debug, Default)]
pub(crate) struct ObservedLeases(BTreeMap<u32, (Lease, Instant)>);

impl ObservedLeases {
    /// Records the leases at this time.
    fn observe(&mut self, leases: &Leases, drains: &Drains, now: Instant) {
        self.0
            .retain(|id, _| drains.contains_key(id) || leases.leases.contains_key(id));
        for (id, lease) in &leases.leases {
            let seen = self.0.entry(*id).or_insert_with(|| (lease.clone(), now));
            if seen.0 != *lease {
                *seen = (lease.clone(), now);
            }
        }
    }

    fn is_expired(&self, drain: u32, now: Instant) -> bool {
        let seen = self.0.get(&drain);
        seen.is_some_and(|(_, since)| now.saturating_duration_since(*since) >= LEASE_DURATION)
    }
}

impl Leases {
    /// Records which leases there are, deletes entries of removed drains and reports whether there
    /// were any. A valid lease stays even if its drain is unknown, because another process may just
    /// have added it.
    pub(crate) fn remove_stale(&mut self, drains: &Drains, observed: &mut ObservedLeases, now: Instant) -> bool {
        observed.observe(self, drains, now);
        let before = self.leases.len() + self.delivered.len() + self.reports.len();
        self.leases
            .retain(|id, _| drains.contains_key(id) || !observed.is_expired(*id, now));
        self.delivered.retain(|id, _| drains.contains_key(id));
        self.reports.retain(|id, _| drains.contains_key(id));
        before != self.leases.len() + self.delivered.len() + self.reports.len()
    }

    /// Acquires or renews the leases that are free or belong to `holder`. `wall` only makes them
    /// readable.
    pub(crate) fn acquire(
        &mut self,
        holder: &str,
        wanted: &[u32],
        drains: &Drains,
        observed: &ObservedLeases,
        (wall, now): (SystemTime, Instant),
    ) -> Vec<u32> {
        let mut acquired = Vec::new();
        for id in wanted {
            let lease = self.leases.get(id);
            let is_free = lease.is_none_or(|lease| lease.holder == holder || observed.is_expired(*id, now));
            if drains.contains_key(id) && is_free {
                let last = lease.map_or(0, |lease| lease.until);
                let lease = Lease {
                    holder: holder.to_owned(),
                    until: millis(wall + LEASE_DURATION).max(last + 1),
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
    fn a_lease_is_exclusive_until_it_is_not_renewed_or_is_released() {
        let (drains, mut leases) = (drains(&[1, 2]), Leases::default());
        let (mut by_a, mut by_b) = (ObservedLeases::default(), ObservedLeases::default());
        let start = system::clock::steady();
        let at = |seconds| start + Duration::from_secs(seconds);
        // The clocks of the holders are years apart and stand still.
        let (wall_a, wall_b) = (
            SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000),
            SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000),
        );
        let mut acquire = |holder: &str, wanted: &[u32], seconds: u64| {
            let (observed, wall) = if holder == "a" {
                (&mut by_a, wall_a)
            } else {
                (&mut by_b, wall_b)
            };
            if wanted.is_empty() {
                leases.release(holder, &[1, 2]);
            }
            leases.remove_stale(&drains, observed, at(seconds));
            leases.acquire(holder, wanted, &drains, observed, (wall, at(seconds)))
        };
        assert_eq!(acquire("a", &[1, 2, 3], 0), [1, 2], "drain 3 does not exist");
        assert_eq!(acquire("b", &[1, 2], 5), [0u32; 0]);
        assert_eq!(acquire("a", &[1], 29), [1], "renewed");
        assert_eq!(acquire("b", &[1, 2], 34), [0u32; 0], "2 was seen for 29 s");
        assert_eq!(acquire("b", &[1, 2], 35), [2], "1 was renewed, 2 was not");
        acquire("b", &[], 36);
        assert_eq!(
            acquire("a", &[1, 2], 37),
            [1, 2],
            "b does not hold the lease of 1 and cannot release it"
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
        let mut observed = ObservedLeases::default();
        assert!(leases.remove_stale(&drains(&[2]), &mut observed, system::clock::steady()));
        assert_eq!(leases.last_delivered(1), None);
    }
}
