//! How many tails there may be.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};

use bus::AppName;
use parking_lot::Mutex;
use prometheus_client::metrics::gauge::Gauge;

use crate::{config::Config, error::ApiError};

/// Seconds until another try may be worth it, at least. Jittered: those who are refused together shall not come again together.
const RETRY_AFTER_SECONDS: u64 = 5;

/// How many more seconds at most.
const RETRY_JITTER_SECONDS: u64 = 10;

/// The tails that there are, by whom they are for.
#[derive(Default)]
pub(crate) struct Tails {
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    all: usize,
    apps: HashMap<AppName, usize>,
    addresses: HashMap<IpAddr, usize>,
}

/// One tail, counted while it lives.
pub(crate) struct Admitted {
    tails: Arc<Tails>,
    app: AppName,
    /// `None`: from this machine, which may have as many as it likes.
    address: Option<IpAddr>,
    gauge: Gauge,
}

impl Tails {
    /// Lets a tail in.
    ///
    /// # Errors
    /// [`ApiError::TooMany`], with what there are too many of.
    pub(crate) fn admit(
        self: &Arc<Self>,
        app: &AppName,
        peer: IpAddr,
        config: &Config,
        gauge: &Gauge,
    ) -> Result<Admitted, ApiError> {
        let address = whose(peer);
        let mut counts = self.counts.lock();
        let of_app = counts.apps.get(app).copied().unwrap_or_default();
        let of_address = address.and_then(|address| counts.addresses.get(&address).copied());
        for (what, count, most) in [
            ("on this server", counts.all, config.max_tails),
            ("of this app", of_app, config.max_tails_per_app),
            (
                "from your address",
                of_address.unwrap_or_default(),
                config.max_tails_per_address,
            ),
        ] {
            if count >= most {
                return Err(ApiError::TooMany {
                    reason: format!("too many tails {what}: {count} of {most}"),
                    retry_after: RETRY_AFTER_SECONDS + jitter(),
                });
            }
        }
        counts.all += 1;
        *counts.apps.entry(app.clone()).or_default() += 1;
        if let Some(address) = address {
            *counts.addresses.entry(address).or_default() += 1;
        }
        gauge.inc();
        Ok(Admitted {
            tails: Arc::clone(self),
            app: app.clone(),
            address,
            gauge: gauge.clone(),
        })
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut counts = self.tails.counts.lock();
        counts.all -= 1;
        leave(&mut counts.apps, &self.app);
        if let Some(address) = &self.address {
            leave(&mut counts.addresses, address);
        }
        self.gauge.dec();
    }
}

fn leave<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

/// Who stands behind an address: of IPv6, a customer has a /64. `None` for this machine itself.
fn whose(peer: IpAddr) -> Option<IpAddr> {
    match peer.to_canonical() {
        address if address.is_loopback() => None,
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Some(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into())
        }
        address => Some(address),
    }
}

fn jitter() -> u64 {
    // The clock's own digits are random enough to spread clients.
    u64::from(std::time::UNIX_EPOCH.elapsed().unwrap_or_default().subsec_micros()) % RETRY_JITTER_SECONDS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admit(tails: &Arc<Tails>, app: &str, peer: &str) -> Result<Admitted, String> {
        let config = Config {
            max_tails: 5,
            max_tails_per_app: 3,
            max_tails_per_address: 2,
            ..Config::default()
        };
        let admitted = tails.admit(&app.parse().unwrap(), peer.parse().unwrap(), &config, &Gauge::default());
        admitted.map_err(|error| error.to_string())
    }

    #[test]
    fn each_bound_holds_and_who_leaves_makes_room() {
        let tails = Arc::new(Tails::default());
        let one = admit(&tails, "shop", "192.0.2.1").unwrap();
        let two = admit(&tails, "blog", "192.0.2.1").unwrap();
        let refused = |app, peer| admit(&tails, app, peer).err().unwrap();
        assert_eq!(
            refused("shop", "::ffff:192.0.2.1"),
            "too many tails from your address: 2 of 2"
        );
        let six = admit(&tails, "shop", "2001:db8::1").unwrap();
        let local = admit(&tails, "shop", "127.0.0.1").unwrap();
        assert_eq!(refused("shop", "127.0.0.1"), "too many tails of this app: 3 of 3");
        let other = admit(&tails, "blog", "2001:db8::2").unwrap();
        assert_eq!(refused("jobs", "::1"), "too many tails on this server: 5 of 5");
        drop((one, two, six, local, other));
        let _all: Vec<Admitted> = (0..3).map(|_| admit(&tails, "shop", "127.0.0.1").unwrap()).collect();
        assert_eq!(tails.counts.lock().addresses.len(), 0, "what is gone is forgotten");
    }
}
