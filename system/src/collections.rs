//! Hash tables whose hash keys come from [`random`](crate::random), so that a simulation iterates
//! them in the same order each time.
//!
//! Create them with `default()`: `new()` exists for the standard library's hash keys only.

#![allow(clippy::disallowed_types, reason = "the only place that names the tables")]

/// A hash map.
pub type HashMap<K, V> = std::collections::HashMap<K, V, RandomState>;

/// A hash set.
pub type HashSet<T> = std::collections::HashSet<T, RandomState>;

/// Random hash keys: an attacker cannot choose keys that collide.
#[cfg(not(feature = "simulation"))]
pub type RandomState = std::hash::RandomState;

#[cfg(feature = "simulation")]
pub use simulated::RandomState;

#[cfg(feature = "simulation")]
mod simulated {
    use std::hash::{BuildHasher, DefaultHasher, Hasher};

    /// Hash keys from the machine's randomness.
    #[derive(Clone, Debug)]
    pub struct RandomState(u64);

    impl Default for RandomState {
        fn default() -> Self {
            Self(crate::random::random())
        }
    }

    impl BuildHasher for RandomState {
        type Hasher = DefaultHasher;

        fn build_hasher(&self) -> DefaultHasher {
            let mut hasher = DefaultHasher::new();
            hasher.write_u64(self.0);
            hasher
        }
    }
}
