//! Metrics of how long running containers have written nothing, without a label per container.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use parking_lot::Mutex;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, gauge::ConstGauge},
    registry::Unit,
};
use system::{
    clock::{Instant, since, steady},
    collections::HashMap,
};

/// Thresholds: a minute, ten minutes, an hour.
const OVER_SECONDS: [u64; 3] = [60, 600, 3600];

/// The time of each running container's last output. Clones share it.
///
/// Exports the longest idle time and the number of containers above each threshold; a label per
/// container would be unbounded.
#[derive(Clone, Debug, Default)]
pub(crate) struct IdleMetrics(Arc<Containers>);

#[derive(Debug, Default)]
struct Containers {
    next: AtomicU64,
    last_activity: Mutex<HashMap<u64, Arc<Mutex<Instant>>>>,
}

/// Tracks one container until it is dropped.
#[derive(Debug)]
pub(crate) struct IdleGuard {
    id: u64,
    last_activity: Arc<Mutex<Instant>>,
    all: IdleMetrics,
}

impl IdleMetrics {
    /// Starts tracking a container.
    pub(crate) fn track(&self) -> IdleGuard {
        let id = self.0.next.fetch_add(1, Ordering::Relaxed);
        let last_activity = Arc::new(Mutex::new(steady()));
        self.0.last_activity.lock().insert(id, Arc::clone(&last_activity));
        IdleGuard {
            id,
            last_activity,
            all: self.clone(),
        }
    }

    /// Returns the idle time of each container in seconds.
    fn idle_seconds(&self) -> Vec<f64> {
        let last_activity = self.0.last_activity.lock();
        last_activity
            .values()
            .map(|last_activity| since(*last_activity.lock()).as_secs_f64())
            .collect()
    }
}

impl IdleGuard {
    /// Records output.
    pub(crate) fn record_activity(&self) {
        *self.last_activity.lock() = steady();
    }
}

impl Drop for IdleGuard {
    fn drop(&mut self) {
        self.all.0.last_activity.lock().remove(&self.id);
    }
}

impl Collector for IdleMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let idle = self.idle_seconds();
        let max = ConstGauge::new(idle.iter().copied().fold(0.0, f64::max));
        let help = "Longest time since a running container wrote its last byte.";
        max.encode(encoder.encode_descriptor("max_idle", help, Some(&Unit::Seconds), max.metric_type())?)?;
        let help = "Running containers without output for longer than the label over_seconds states.";
        let mut family = encoder.encode_descriptor("idle_containers", help, None, MetricType::Gauge)?;
        for over in OVER_SECONDS {
            let count = idle.iter().filter(|seconds| **seconds > over as f64).count();
            let count = ConstGauge::new(i64::try_from(count).unwrap_or(i64::MAX));
            count.encode(family.encode_family(&[("over_seconds", over)])?)?;
        }
        Ok(())
    }
}
