//! Throttling of clients that keep sending invalid keys.
//!
//! Keys cannot be guessed; throttling limits the work and the log volume that such clients cause.

use std::{hash::BuildHasher, net::IpAddr, num::NonZeroU32};

use governor::{
    Quota, RateLimiter, clock::Clock, middleware::NoOpMiddleware, nanos::Nanos, state::keyed::HashMapStateStore,
};
use system::{
    clock::{self, Instant},
    collections::RandomState,
};

use crate::{error::ApiError, tail_limits::client_network};

/// Invalid keys allowed per minute from one client network, and repetitions of one invalid key;
/// also the burst of both.
const FAILURES_PER_MINUTE: NonZeroU32 = NonZeroU32::new(20).expect("not zero");

/// Limit of tracked networks, and of tracked keys. Above it every failure is throttled; valid keys
/// are not affected.
const MAX_TRACKED: usize = 50_000;

/// Value of `Retry-After` in seconds: by then one more attempt is allowed.
const RETRY_AFTER_SECONDS: u64 = 5;

type Limiter = RateLimiter<u64, HashMapStateStore<u64>, SteadyClock, NoOpMiddleware<Nanos>>;

/// Measures the time since a point in time.
struct SteadyClock(Instant);

impl Clock for SteadyClock {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        clock::since(self.0).into()
    }
}

/// Rate limits of failures by client network and by key.
pub(super) struct Throttle {
    networks: Limiter,
    keys: Limiter,
    hasher: RandomState,
}

impl Default for Throttle {
    fn default() -> Self {
        let limiter = || {
            RateLimiter::new(
                Quota::per_minute(FAILURES_PER_MINUTE),
                HashMapStateStore::default(),
                SteadyClock(clock::steady()),
            )
        };
        Self {
            networks: limiter(),
            keys: limiter(),
            hasher: RandomState::default(),
        }
    }
}

impl Throttle {
    /// Records an invalid key and returns the error for its sender. Loopback addresses are not
    /// limited, but their keys are.
    pub(super) fn record_failure(&self, peer: IpAddr, key: &str) -> ApiError {
        let by_network =
            client_network(peer).is_none_or(|network| is_allowed(&self.networks, self.hasher.hash_one(network)));
        let by_key = is_allowed(&self.keys, self.hasher.hash_one(key));
        if by_network && by_key {
            tracing::info!(%peer, "invalid API key");
            return ApiError::Unauthorized;
        }
        tracing::debug!(%peer, "invalid API key, throttled");
        ApiError::Throttled {
            retry_after: RETRY_AFTER_SECONDS,
        }
    }
}

fn is_allowed(limiter: &Limiter, hash: u64) -> bool {
    if limiter.len() >= MAX_TRACKED {
        limiter.retain_recent();
        limiter.shrink_to_fit();
        if limiter.len() >= MAX_TRACKED {
            return false;
        }
    }
    limiter.check_key(&hash).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_throttled(throttle: &Throttle, peer: &str, key: &str) -> bool {
        matches!(
            throttle.record_failure(peer.parse().unwrap(), key),
            ApiError::Throttled { .. }
        )
    }

    #[test]
    fn a_network_with_many_failures_is_throttled_and_others_are_not() {
        let throttle = Throttle::default();
        // More than the burst, and more than the rate allows during the test.
        let failed = (0..200).map(|n| is_throttled(&throttle, "2001:db8::1", &n.to_string()));
        let failed: Vec<bool> = failed.collect();
        assert!(!failed[0] && failed.contains(&true));
        assert!(
            is_throttled(&throttle, "2001:db8::2", "x") || is_throttled(&throttle, "2001:db8::3", "y"),
            "the same /64"
        );
        assert!(!is_throttled(&throttle, "192.0.2.1", "z"));
    }

    #[test]
    fn a_key_with_many_failures_is_throttled_from_every_address() {
        let throttle = Throttle::default();
        let failed = (0..200u8).map(|n| is_throttled(&throttle, &format!("192.0.2.{n}"), "the same"));
        assert!(failed.collect::<Vec<_>>().contains(&true));
        assert!(!is_throttled(&throttle, "192.0.2.250", "another"));
    }
}
