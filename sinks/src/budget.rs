//! The memory that all drains of a process share.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// The bytes that all drains buffer, and their limit.
pub(crate) struct MemoryBudget {
    max: usize,
    used: AtomicUsize,
}

impl MemoryBudget {
    pub(crate) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self {
            max,
            used: AtomicUsize::new(0),
        })
    }

    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    pub(crate) fn add(&self, bytes: usize) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn remove(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Whether the limit is reached.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.used() >= self.max
    }

    /// Whether failing drains should return their lines to the bus.
    pub(crate) fn is_scarce(&self) -> bool {
        self.used() > self.max / 2
    }
}
