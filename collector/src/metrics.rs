//! The collector's metrics.

use std::time::Duration;

use bus::GapReason;
use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

use crate::idle_metrics::IdleMetrics;

/// From half a millisecond (a synced batch on a local disk) to several seconds (a failing bus).
const PUBLISH_SECONDS: [f64; 10] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 0.5, 2.5, 10.0];

/// The collector's metrics. Clones share the values. Without registration they are counted but not
/// exported.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub(crate) lines: Counter,
    pub(crate) bytes: Counter,
    pub(crate) batches: Counter,
    pub(crate) publish_seconds: Histogram,
    pub(crate) publish_retries: Counter,
    pub(crate) checkpoint_write_failures: Counter,
    pub(crate) spool_write_failures: Counter,
    pub(crate) followed: Gauge,
    pub(crate) polled: Gauge,
    pub(crate) unreadable: Gauge,
    pub(crate) excluded_lines: Counter,
    pub(crate) rotation_probes: Counter,
    pub(crate) idle: IdleMetrics,
    spool: Gauge,
    reconnects: Family<ReconnectLabels, Counter>,
    gaps: Family<GapLabels, Counter>,
    lost_lines: Family<GapLabels, Counter>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReconnectLabels {
    reason: ReconnectReason,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct GapLabels {
    reason: &'static str,
}

/// Why a log is requested again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[expect(non_camel_case_types, reason = "printed as label values, which are lower case")]
pub(crate) enum ReconnectReason {
    /// The response ended cleanly, without a reason.
    clean_end,
    /// The connection or the response failed.
    broken,
    /// The collector's account has no access.
    refused,
    /// The API server requested a delay.
    busy,
    /// The follow stalled: it was open and did not deliver existing lines.
    silent,
    /// The node has no follow left; the log is polled.
    no_follow,
    /// The follow reached its maximum age.
    renewed,
    /// The state of the instance changed.
    changed,
}

impl ReconnectReason {
    const ALL: [Self; 8] = [
        Self::clean_end,
        Self::broken,
        Self::refused,
        Self::busy,
        Self::silent,
        Self::no_follow,
        Self::renewed,
        Self::changed,
    ];
}

impl Default for Metrics {
    fn default() -> Self {
        let metrics = Self {
            lines: Counter::default(),
            bytes: Counter::default(),
            batches: Counter::default(),
            publish_seconds: Histogram::new(PUBLISH_SECONDS),
            publish_retries: Counter::default(),
            checkpoint_write_failures: Counter::default(),
            spool_write_failures: Counter::default(),
            followed: Gauge::default(),
            polled: Gauge::default(),
            unreadable: Gauge::default(),
            excluded_lines: Counter::default(),
            rotation_probes: Counter::default(),
            idle: IdleMetrics::default(),
            spool: Gauge::default(),
            reconnects: Family::default(),
            gaps: Family::default(),
            lost_lines: Family::default(),
        };
        // Every label value is exported from the start, so that rates see the first increment.
        for reason in ReconnectReason::ALL {
            let _ = metrics.reconnects.get_or_create(&ReconnectLabels { reason });
        }
        for reason in GapReason::labels() {
            let _ = metrics.gaps.get_or_create(&GapLabels { reason });
            let _ = metrics.lost_lines.get_or_create(&GapLabels { reason });
        }
        metrics
    }
}

impl Metrics {
    /// Registers the metrics as `tributary_collector_…`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let registry = registry.sub_registry_with_prefix("tributary_collector");
        registry.register("lines", "Lines read and numbered", metrics.lines.clone());
        registry.register(
            "bytes",
            "Bytes of the lines read, with timestamps",
            metrics.bytes.clone(),
        );
        registry.register("batches", "Batches accepted by the bus", metrics.batches.clone());
        registry.register_with_unit(
            "publish",
            "Time from sending a batch to its acceptance by the bus",
            Unit::Seconds,
            metrics.publish_seconds.clone(),
        );
        registry.register(
            "publish_retries",
            "Publish attempts that failed and were retried",
            metrics.publish_retries.clone(),
        );
        registry.register(
            "checkpoint_write_failures",
            "Failed attempts to write checkpoints to disk",
            metrics.checkpoint_write_failures.clone(),
        );
        registry.register(
            "spool_write_failures",
            "Failed attempts to write to the spool",
            metrics.spool_write_failures.clone(),
        );
        registry.register(
            "followed_containers",
            "Containers whose log is followed",
            metrics.followed.clone(),
        );
        registry.register(
            "polled_containers",
            "Containers whose log is polled because their node or this process has reached its limit of open follow requests",
            metrics.polled.clone(),
        );
        registry.register(
            "unreadable_containers",
            "Containers whose log could not be read for a minute or longer",
            metrics.unreadable.clone(),
        );
        registry.register(
            "excluded_lines",
            "Lines of excluded pods that were read from files and dropped",
            metrics.excluded_lines.clone(),
        );
        registry.register_with_unit(
            "spool",
            "Size of the spool, the data on disk that the bus has not accepted",
            Unit::Bytes,
            metrics.spool.clone(),
        );
        registry.register(
            "reconnects",
            "Times that a log was requested again, by reason",
            metrics.reconnects.clone(),
        );
        registry.register(
            "rotation_probes",
            "Probes of the current log file for rotations that a follow skipped",
            metrics.rotation_probes.clone(),
        );
        registry.register("gaps", "Gaps recorded, by reason", metrics.gaps.clone());
        registry.register(
            "lost_lines",
            "Lines in recorded gaps, by reason; gaps of unknown size are not counted",
            metrics.lost_lines.clone(),
        );
        registry.register_collector(Box::new(metrics.idle.clone()));
        metrics
    }

    pub(crate) fn published(&self, took: Duration) {
        self.batches.inc();
        self.publish_seconds.observe(took.as_secs_f64());
    }

    pub(crate) fn reconnected(&self, reason: ReconnectReason) {
        self.reconnects.get_or_create(&ReconnectLabels { reason }).inc();
    }

    pub(crate) fn record_gap(&self, reason: &GapReason, lines: u64) {
        let labels = GapLabels { reason: reason.label() };
        self.gaps.get_or_create(&labels).inc();
        self.lost_lines.get_or_create(&labels).inc_by(lines);
    }

    pub(crate) fn set_spool_bytes(&self, bytes: u64) {
        self.spool.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }
}

/// Increments a gauge while it is alive.
pub(crate) struct GaugeGuard(Gauge);

impl GaugeGuard {
    pub(crate) fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for GaugeGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_label_value_is_exported_at_zero() {
        let mut registry = Registry::default();
        let _metrics = Metrics::register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in [
            "tributary_collector_gaps_total{reason=\"rotated\"} 0",
            "tributary_collector_lost_lines_total{reason=\"spool\"} 0",
            "tributary_collector_reconnects_total{reason=\"no_follow\"} 0",
            "tributary_collector_idle_containers{over_seconds=\"600\"} 0",
            "tributary_collector_max_idle_seconds 0.0",
            "tributary_collector_polled_containers 0",
        ] {
            assert!(text.lines().any(|exported| exported == line), "{line} in {text}");
        }
    }
}
