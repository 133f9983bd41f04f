//! Who reads which drain, and what was delivered: what changes all the time.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};

use crate::{DELIVERED_GRAIN, DrainReport, Drains, LEASE};

/// How far the clocks of two machines may be apart.
const SKEW: Duration = Duration::from_secs(60);

/// Who reads which drain, and what was delivered.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Leases {
    leases: BTreeMap<u32, Lease>,
    /// Milliseconds since 1970, by drain.
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
    /// Forgets what is gone. `true` where there was something. A lease stays while it is good: its drain may be one that another process has just added.
    pub(crate) fn keep(&mut self, drains: &Drains, now: SystemTime) -> bool {
        let before = self.leases.len() + self.delivered.len() + self.reports.len();
        let now = millis(now);
        self.leases
            .retain(|id, lease| drains.contains_key(id) || now < lease.until);
        self.delivered.retain(|id, _| drains.contains_key(id));
        self.reports.retain(|id, _| drains.contains_key(id));
        before != self.leases.len() + self.delivered.len() + self.reports.len()
    }

    /// Takes or renews what may be had.
    pub(crate) fn take(&mut self, holder: &str, wanted: &[u32], drains: &Drains, now: SystemTime) -> Vec<u32> {
        let (now, until, beyond) = (millis(now), millis(now + LEASE), millis(now + LEASE + SKEW));
        let free = |lease: &Lease| {
            // A clock that was set back must not leave a drain without a reader for long; one that is a little ahead of ours must not cost its holder the lease.
            let void = lease.until <= now || lease.until > beyond;
            lease.holder == holder || void
        };
        let mut had = Vec::new();
        for id in wanted {
            if drains.contains_key(id) && self.leases.get(id).is_none_or(free) {
                let lease = Lease {
                    holder: holder.to_owned(),
                    until,
                };
                self.leases.insert(*id, lease);
                had.push(*id);
            }
        }
        had
    }

    /// Gives back what is the holder's.
    pub(crate) fn release(&mut self, holder: &str, drains: &[u32]) {
        self.leases
            .retain(|id, lease| lease.holder != holder || !drains.contains(id));
    }

    /// Notes how a drain is. `false` where that was known.
    pub(crate) fn report(&mut self, drain: u32, report: DrainReport) -> bool {
        let new = self.reports.get(&drain) != Some(&report);
        self.reports.insert(drain, report);
        new
    }

    pub(crate) fn report_of(&self, drain: u32) -> Option<DrainReport> {
        self.reports.get(&drain).cloned()
    }

    /// Notes a delivery. `false` where it need not be written.
    pub(crate) fn deliver(&mut self, drain: u32, at: SystemTime) -> bool {
        let at = millis(at);
        let before = self.delivered.get(&drain).copied();
        let grain = u64::try_from(DELIVERED_GRAIN.as_millis()).unwrap_or(u64::MAX);
        let due = before.is_none_or(|before| at >= before.saturating_add(grain));
        if due {
            self.delivered.insert(drain, at);
        }
        due
    }

    pub(crate) fn delivered(&self, drain: u32) -> Option<SystemTime> {
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
    use crate::Drain;

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
    fn a_lease_is_its_holders_until_its_time_is_over_or_it_is_given_back() {
        let (drains, mut leases) = (drains(&[1, 2]), Leases::default());
        let begun = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let at = |seconds| begun + Duration::from_secs(seconds);
        assert_eq!(leases.take("a", &[1, 2, 3], &drains, at(0)), [1, 2], "3 is gone");
        assert_eq!(leases.take("b", &[1, 2], &drains, at(29)), [0u32; 0]);
        assert_eq!(leases.take("a", &[1], &drains, at(29)), [1], "renewed");
        assert_eq!(
            leases.take("b", &[1, 2], &drains, at(30)),
            [2],
            "1 was renewed, 2 is void"
        );
        leases.release("b", &[1, 2]);
        assert_eq!(
            leases.take("a", &[1, 2], &drains, at(31)),
            [1, 2],
            "1 was not b's to give back"
        );
        assert_eq!(
            leases.take("b", &[1], &drains, begun - SKEW),
            [1],
            "a clock that was set back blocks nobody"
        );
    }

    #[test]
    fn a_delivery_is_written_once_a_minute_and_forgotten_with_its_drain() {
        let mut leases = Leases::default();
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        assert!(leases.deliver(1, at(100)));
        assert!(!leases.deliver(1, at(159)));
        assert_eq!(leases.delivered(1), Some(at(100)));
        assert!(leases.deliver(1, at(160)));
        assert!(leases.keep(&drains(&[2]), at(200)));
        assert_eq!(leases.delivered(1), None);
    }
}
