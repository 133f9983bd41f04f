//! Who fails again and again has to wait.
//!
//! Keys cannot be guessed: what is held back here is work, and noise in the logs.

use std::{
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    num::NonZeroU32,
};

use governor::{
    Quota, RateLimiter, clock::MonotonicClock, middleware::NoOpMiddleware, state::keyed::HashMapStateStore,
};

use crate::{error::ApiError, limits::whose};

/// How many bad keys a minute may come from one address (IPv6: one /64), and how often the same one, after as many at once.
const FAILURES: NonZeroU32 = NonZeroU32::new(20).expect("not zero");

/// How many addresses, and how many keys, are remembered. Above it all who fail wait, and those who do not are let in as ever.
const MAX_REMEMBERED: usize = 50_000;

/// Seconds until another try may be worth it: one more is allowed then.
const RETRY_AFTER_SECONDS: u64 = 5;

type Limiter = RateLimiter<u64, HashMapStateStore<u64>, MonotonicClock, NoOpMiddleware<std::time::Instant>>;

/// Counts failures by address and by key.
pub(super) struct Throttle {
    addresses: Limiter,
    keys: Limiter,
    hasher: RandomState,
}

impl Default for Throttle {
    fn default() -> Self {
        let limiter = || {
            RateLimiter::new(
                Quota::per_minute(FAILURES),
                HashMapStateStore::default(),
                MonotonicClock,
            )
        };
        Self {
            addresses: limiter(),
            keys: limiter(),
            hasher: RandomState::new(),
        }
    }
}

impl Throttle {
    /// Notes a bad key; returns what its sender is told. This machine's own address is not counted, their keys are.
    pub(super) fn failed(&self, peer: IpAddr, key: &str) -> ApiError {
        let by_address = whose(peer).is_none_or(|address| allowed(&self.addresses, self.hasher.hash_one(address)));
        let by_key = allowed(&self.keys, self.hasher.hash_one(key));
        if by_address && by_key {
            tracing::info!(%peer, "a key was refused");
            return ApiError::Unauthorized;
        }
        tracing::debug!(%peer, "a key was refused, as many before it");
        ApiError::Throttled {
            retry_after: RETRY_AFTER_SECONDS,
        }
    }
}

fn allowed(limiter: &Limiter, who: u64) -> bool {
    if limiter.len() >= MAX_REMEMBERED {
        limiter.retain_recent();
        limiter.shrink_to_fit();
        if limiter.len() >= MAX_REMEMBERED {
            return false;
        }
    }
    limiter.check_key(&who).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(throttle: &Throttle, peer: &str, key: &str) -> bool {
        matches!(throttle.failed(peer.parse().unwrap(), key), ApiError::Throttled { .. })
    }

    #[test]
    fn an_address_that_fails_again_and_again_waits_and_others_do_not() {
        let throttle = Throttle::default();
        // More than may be at once, and more than come free meanwhile.
        let failed = (0..200).map(|n| refused(&throttle, "2001:db8::1", &n.to_string()));
        let failed: Vec<bool> = failed.collect();
        assert!(!failed[0] && failed.contains(&true));
        assert!(
            refused(&throttle, "2001:db8::2", "x") || refused(&throttle, "2001:db8::3", "y"),
            "the same /64"
        );
        assert!(!refused(&throttle, "192.0.2.1", "z"));
    }

    #[test]
    fn a_key_that_fails_again_and_again_waits_wherever_it_comes_from() {
        let throttle = Throttle::default();
        let failed = (0..200u8).map(|n| refused(&throttle, &format!("192.0.2.{n}"), "the same"));
        assert!(failed.collect::<Vec<_>>().contains(&true));
        assert!(!refused(&throttle, "192.0.2.250", "another"));
    }
}
