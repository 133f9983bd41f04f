//! Prometheus metrics of the streamer.

use bus::{Gap, GapReason};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

/// The streamer's metrics. Clones share their counters. Unregistered metrics count but are not
/// exported.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    pub(crate) active_apps: Gauge,
    pub(crate) tails: Gauge,
    pub(crate) lines: Counter,
    pub(crate) late_lines: Counter,
    lost_lines: Family<ReasonLabel, Counter>,
    gaps: Family<ReasonLabel, Counter>,
    pub(crate) subscription_resets: Counter,
    pub(crate) history_reads: Counter,
    pub(crate) stalled_connections: Counter,
    pub(crate) ring_bytes: Gauge,
    pub(crate) history_bytes: Gauge,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

/// Why lines of a stream were not delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// Recorded by a collector, with this reason.
    Recorded(&'static str),
    /// Not delivered by the bus.
    Undelivered,
    /// The subscription was reset.
    Interrupted,
    /// Published in a format that this version cannot read.
    Unreadable,
    /// Skipped for one client that fell behind.
    SlowClient,
}

impl Reason {
    fn all() -> impl Iterator<Item = Self> {
        let own = [Self::Undelivered, Self::Interrupted, Self::Unreadable, Self::SlowClient];
        GapReason::labels().map(Self::Recorded).chain(own)
    }

    /// Returns the reason of a gap event; one without a recorded gap was not delivered by the bus.
    pub(crate) fn of(recorded: Option<&Gap>) -> Self {
        recorded.map_or(Self::Undelivered, |gap| Self::Recorded(gap.reason.label()))
    }

    fn label(self) -> ReasonLabel {
        let reason = match self {
            Self::Recorded(reason) => reason,
            Self::Undelivered => "undelivered",
            Self::Interrupted => "interrupted",
            Self::Unreadable => "unreadable",
            Self::SlowClient => "slow_client",
        };
        ReasonLabel { reason }
    }
}

impl Metrics {
    /// Registers the metrics under the prefix `tributary_streamer_`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        for reason in Reason::all() {
            metrics.record_gap(reason, 0, 0);
        }
        let registry = registry.sub_registry_with_prefix("tributary_streamer");
        registry.register("active_apps", "Apps with an open hub", metrics.active_apps.clone());
        registry.register("tails", "Open log requests", metrics.tails.clone());
        registry.register("lines", "Lines delivered by hubs", metrics.lines.clone());
        registry.register(
            "late_lines",
            "Lines delivered after a gap notice that covers them",
            metrics.late_lines.clone(),
        );
        registry.register(
            "lost_lines",
            "Lines not delivered to live tails; gaps of unknown size are not counted",
            metrics.lost_lines.clone(),
        );
        registry.register("gaps", "Gap notices sent to live tails", metrics.gaps.clone());
        registry.register(
            "subscription_resets",
            "Subscriptions that were interrupted and reset",
            metrics.subscription_resets.clone(),
        );
        registry.register(
            "history_reads",
            "Reads of history from the bus",
            metrics.history_reads.clone(),
        );
        registry.register(
            "history_bytes",
            "Bytes of history held in memory until it is sent, including renderings",
            metrics.history_bytes.clone(),
        );
        registry.register(
            "ring_bytes",
            "Bytes of live lines held in memory, including renderings",
            metrics.ring_bytes.clone(),
        );
        registry.register(
            "stalled_connections",
            "Connections closed because the client read nothing",
            metrics.stalled_connections.clone(),
        );
        metrics
    }

    /// Counts one gap and its lines; 0 lines if their number is unknown.
    pub(crate) fn count_gap(&self, reason: Reason, lines: u64) {
        self.record_gap(reason, 1, lines);
    }

    fn record_gap(&self, reason: Reason, gaps: u64, lines: u64) {
        self.gaps.get_or_create(&reason.label()).inc_by(gaps);
        self.lost_lines.get_or_create(&reason.label()).inc_by(lines);
    }
}
