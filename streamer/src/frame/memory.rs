//! Memory accounting of frames, per owner and in total.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use prometheus_client::metrics::gauge::Gauge;

/// Set once the owner released a frame. Bytes added later are not counted for the owner.
const RELEASED: usize = 1 << (usize::BITS - 1);

/// A byte counter of one owner that also counts into a total.
#[derive(Clone, Debug, Default)]
pub(crate) struct MemoryBudget {
    own: Arc<AtomicUsize>,
    total: Arc<AtomicUsize>,
    gauge: Gauge,
}

impl MemoryBudget {
    /// Creates a total that is exported as this gauge.
    pub(crate) fn exported(gauge: Gauge) -> Self {
        Self {
            gauge,
            ..Self::default()
        }
    }

    /// Creates the counter of another owner, which counts into the same total.
    pub(crate) fn part(&self) -> Self {
        Self {
            own: Arc::default(),
            total: Arc::clone(&self.total),
            gauge: self.gauge.clone(),
        }
    }

    /// Returns the bytes of this owner.
    pub(crate) fn own(&self) -> usize {
        self.own.load(Relaxed)
    }

    /// Returns the bytes of all owners.
    pub(crate) fn total(&self) -> usize {
        self.total.load(Relaxed)
    }

    fn add(&self, bytes: usize) {
        self.own.fetch_add(bytes, Relaxed);
        self.total.fetch_add(bytes, Relaxed);
        self.gauge.inc_by(to_i64(bytes));
    }

    fn remove(&self, bytes: usize) {
        self.own.fetch_sub(bytes, Relaxed);
        self.total.fetch_sub(bytes, Relaxed);
        self.gauge.dec_by(to_i64(bytes));
    }
}

fn to_i64(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// The bytes of one frame: its lines, and its renderings as they are made.
#[derive(Debug)]
pub(crate) struct Charge {
    bytes: AtomicUsize,
    budget: OnceLock<MemoryBudget>,
}

impl Charge {
    pub(crate) fn new(bytes: usize) -> Self {
        Self {
            bytes: AtomicUsize::new(bytes),
            budget: OnceLock::new(),
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Relaxed) & !RELEASED
    }

    /// Starts counting the frame against a budget. A frame has one owner; call this once.
    pub(crate) fn count_in(&self, budget: &MemoryBudget) {
        budget.add(self.bytes());
        let _ = self.budget.set(budget.clone());
    }

    /// Stops counting the frame. Later calls have no effect.
    pub(crate) fn release(&self) {
        let before = self.bytes.fetch_or(RELEASED, Relaxed);
        if let Some(budget) = self.budget.get()
            && before & RELEASED == 0
        {
            budget.remove(before);
        }
    }

    /// Adds bytes to the frame, and to its budget until the frame is released.
    pub(crate) fn add(&self, bytes: usize) {
        let before = self.bytes.fetch_add(bytes, Relaxed);
        if let Some(budget) = self.budget.get()
            && before & RELEASED == 0
        {
            budget.add(bytes);
        }
    }
}
