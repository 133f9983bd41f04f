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
    pub(crate) followed: Gauge,
    pub(crate) polled: Gauge,
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
    reason: GapLabel,
}

/// Why a log is requested again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[expect(non_camel_case_types, reason = "printed as they are: label values are lower case")]
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

/// Why lines are lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[expect(non_camel_case_types, reason = "printed as they are: label values are lower case")]
pub(crate) enum GapLabel {
    away,
    gone,
    rotated,
    spool,
    limit,
    refused,
    other,
}

impl From<&GapReason> for GapLabel {
    fn from(reason: &GapReason) -> Self {
        match reason {
            GapReason::Away => Self::away,
            GapReason::Gone => Self::gone,
            GapReason::Rotated => Self::rotated,
            GapReason::Spool => Self::spool,
            GapReason::Limit => Self::limit,
            GapReason::Refused => Self::refused,
            GapReason::Other(_) => Self::other,
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            lines: Counter::default(),
            bytes: Counter::default(),
            batches: Counter::default(),
            publish_seconds: Histogram::new(PUBLISH_SECONDS),
            publish_retries: Counter::default(),
            followed: Gauge::default(),
            polled: Gauge::default(),
            rotation_probes: Counter::default(),
            idle: IdleMetrics::default(),
            spool: Gauge::default(),
            reconnects: Family::default(),
            gaps: Family::default(),
            lost_lines: Family::default(),
        }
    }
}

impl Metrics {
    /// Registers the metrics as `tributary_collector_…`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let registry = registry.sub_registry_with_prefix("tributary_collector");
        registry.register("lines", "Lines that were read and numbered", metrics.lines.clone());
        registry.register("bytes", "Bytes of them, timestamps included", metrics.bytes.clone());
        registry.register("batches", "Batches that the bus accepted", metrics.batches.clone());
        registry.register_with_unit(
            "publish",
            "From a batch's handing over to its acceptance",
            Unit::Seconds,
            metrics.publish_seconds.clone(),
        );
        registry.register(
            "publish_refusals",
            "Attempts that the bus refused for now",
            metrics.publish_retries.clone(),
        );
        registry.register("follows", "Logs that are followed", metrics.followed.clone());
        registry.register(
            "polled",
            "Logs that are being polled, as their node has no follow left for them",
            metrics.polled.clone(),
        );
        registry.register_with_unit(
            "spool",
            "Batches on disk that wait for the bus",
            Unit::Bytes,
            metrics.spool.clone(),
        );
        registry.register(
            "reconnects",
            "Times that a log was asked for again",
            metrics.reconnects.clone(),
        );
        registry.register(
            "looks",
            "Looks at how a loud container's current file begins",
            metrics.rotation_probes.clone(),
        );
        registry.register("losses", "Losses that were told", metrics.gaps.clone());
        registry.register(
            "lost_lines",
            "Lines that were told to be lost, where their count is known",
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

    pub(crate) fn record_gap(&self, reason: GapLabel, lines: u64) {
        let record_gap = GapLabels { reason };
        self.gaps.get_or_create(&record_gap).inc();
        self.lost_lines.get_or_create(&record_gap).inc_by(lines);
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
