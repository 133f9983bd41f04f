//! Limits on the number of open log requests.

use std::{
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};

use bus::AppName;
use parking_lot::Mutex;
use prometheus_client::metrics::gauge::Gauge;
use system::{collections::HashMap, random::random_range};

use crate::{config::Config, error::ApiError};

/// Minimum value of `Retry-After` in seconds.
const RETRY_AFTER_SECONDS: u64 = 5;

/// Random seconds added to `Retry-After`, so that refused clients do not return together.
const RETRY_JITTER_SECONDS: u64 = 10;

/// Counts open tails in total, per app and per client address.
#[derive(Default)]
pub(crate) struct TailLimits {
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    total: usize,
    apps: HashMap<AppName, usize>,
    addresses: HashMap<IpAddr, usize>,
}

/// Counts one tail until it is dropped.
pub(crate) struct Admitted {
    limits: Arc<TailLimits>,
    app: AppName,
    /// `None` for a loopback address, which has no limit.
    address: Option<IpAddr>,
    gauge: Gauge,
}

impl TailLimits {
    /// Admits a tail.
    ///
    /// # Errors
    /// [`ApiError::TooMany`] with the limit that is reached.
    pub(crate) fn admit(
        self: &Arc<Self>,
        app: &AppName,
        peer: IpAddr,
        config: &Config,
        gauge: &Gauge,
    ) -> Result<Admitted, ApiError> {
        let address = client_network(peer);
        let mut counts = self.counts.lock();
        let of_app = counts.apps.get(app).copied().unwrap_or_default();
        let of_address = address.and_then(|address| counts.addresses.get(&address).copied());
        for (scope, count, limit) in [
            ("on this server", counts.total, config.max_tails),
            ("of this app", of_app, config.max_tails_per_app),
            (
                "from your address",
                of_address.unwrap_or_default(),
                config.max_tails_per_address,
            ),
        ] {
            if count >= limit {
                return Err(too_many(&format!("open log requests {scope}"), count, limit));
            }
        }
        counts.total += 1;
        *counts.apps.entry(app.clone()).or_default() += 1;
        if let Some(address) = address {
            *counts.addresses.entry(address).or_default() += 1;
        }
        gauge.inc();
        Ok(Admitted {
            limits: Arc::clone(self),
            app: app.clone(),
            address,
            gauge: gauge.clone(),
        })
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut counts = self.limits.counts.lock();
        counts.total -= 1;
        decrement(&mut counts.apps, &self.app);
        if let Some(address) = &self.address {
            decrement(&mut counts.addresses, address);
        }
        self.gauge.dec();
    }
}

/// Returns the error of a limit that is reached: `count` of `limit` of `what` are open.
pub(crate) fn too_many(what: &str, count: usize, limit: usize) -> ApiError {
    ApiError::TooMany {
        reason: format!("too many {what}: {count} of {limit}; close one or retry later"),
        retry_after: RETRY_AFTER_SECONDS + random_range(0..RETRY_JITTER_SECONDS),
    }
}

fn decrement<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

/// Returns the unit by which clients are limited: the IPv4 address or the IPv6 /64 network. `None`
/// for a loopback address.
pub(crate) fn client_network(peer: IpAddr) -> Option<IpAddr> {
    match peer.to_canonical() {
        address if address.is_loopback() => None,
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Some(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into())
        }
        address => Some(address),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admit(limits: &Arc<TailLimits>, app: &str, peer: &str) -> Result<Admitted, String> {
        let config = Config {
            max_tails: 5,
            max_tails_per_app: 3,
            max_tails_per_address: 2,
            ..Config::default()
        };
        let admitted = limits.admit(&app.parse().unwrap(), peer.parse().unwrap(), &config, &Gauge::default());
        admitted.map_err(|error| error.to_string())
    }

    #[test]
    fn each_limit_holds_and_a_closed_tail_makes_room() {
        let limits = Arc::new(TailLimits::default());
        let one = admit(&limits, "shop", "192.0.2.1").unwrap();
        let two = admit(&limits, "blog", "192.0.2.1").unwrap();
        let refused = |app, peer| admit(&limits, app, peer).err().unwrap();
        assert_eq!(
            refused("shop", "::ffff:192.0.2.1"),
            "too many open log requests from your address: 2 of 2; close one or retry later"
        );
        let six = admit(&limits, "shop", "2001:db8::1").unwrap();
        let local = admit(&limits, "shop", "127.0.0.1").unwrap();
        assert_eq!(
            refused("shop", "127.0.0.1"),
            "too many open log requests of this app: 3 of 3; close one or retry later"
        );
        let other = admit(&limits, "blog", "2001:db8::2").unwrap();
        assert_eq!(
            refused("jobs", "::1"),
            "too many open log requests on this server: 5 of 5; close one or retry later"
        );
        drop((one, two, six, local, other));
        let _all: Vec<Admitted> = (0..3).map(|_| admit(&limits, "shop", "127.0.0.1").unwrap()).collect();
        assert_eq!(limits.counts.lock().addresses.len(), 0, "closed tails are not tracked");
    }
}
