//! What frames cost in memory, counted where they are kept.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use prometheus_client::metrics::gauge::Gauge;

/// Set when its keeper let a frame go: what it costs from then on is its readers'.
const GONE: usize = 1 << (usize::BITS - 1);

/// Bytes that are kept, of one ring and of all.
#[derive(Clone, Debug, Default)]
pub(crate) struct Kept {
    own: Arc<AtomicUsize>,
    all: Arc<AtomicUsize>,
    gauge: Gauge,
}

impl Kept {
    /// A whole that is shown as this.
    pub(crate) fn shown(gauge: Gauge) -> Self {
        Self {
            gauge,
            ..Self::default()
        }
    }

    /// A part that counts itself, and into the same whole.
    pub(crate) fn part(&self) -> Self {
        Self {
            own: Arc::default(),
            all: Arc::clone(&self.all),
            gauge: self.gauge.clone(),
        }
    }

    pub(crate) fn own(&self) -> usize {
        self.own.load(Relaxed)
    }

    pub(crate) fn all(&self) -> usize {
        self.all.load(Relaxed)
    }

    fn add(&self, bytes: usize) {
        self.own.fetch_add(bytes, Relaxed);
        self.all.fetch_add(bytes, Relaxed);
        self.gauge.inc_by(signed(bytes));
    }

    fn remove(&self, bytes: usize) {
        self.own.fetch_sub(bytes, Relaxed);
        self.all.fetch_sub(bytes, Relaxed);
        self.gauge.dec_by(signed(bytes));
    }
}

fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// One frame's bytes: its lines', and its renderings' as they are made.
#[derive(Debug)]
pub(crate) struct Charge {
    bytes: AtomicUsize,
    kept: OnceLock<Kept>,
}

impl Charge {
    pub(crate) fn new(bytes: usize) -> Self {
        Self {
            bytes: AtomicUsize::new(bytes),
            kept: OnceLock::new(),
        }
    }

    /// Its bytes.
    pub(crate) fn own(&self) -> usize {
        self.bytes.load(Relaxed) & !GONE
    }

    /// From here on it counts there.
    pub(crate) fn keep(&self, kept: &Kept) {
        kept.add(self.own());
        // A frame is kept once, by the ring that it was made for.
        let _ = self.kept.set(kept.clone());
    }

    /// From here on it does not.
    pub(crate) fn let_go(&self) {
        let before = self.bytes.fetch_or(GONE, Relaxed);
        if let Some(kept) = self.kept.get()
            && before & GONE == 0
        {
            kept.remove(before);
        }
    }

    /// More bytes, counted with the others while the frame is kept.
    pub(crate) fn add(&self, bytes: usize) {
        let before = self.bytes.fetch_add(bytes, Relaxed);
        if let Some(kept) = self.kept.get()
            && before & GONE == 0
        {
            kept.add(bytes);
        }
    }
}
