//! The metrics of sinks.

use std::collections::BTreeMap;

use bus::GapReason;
use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use registry::DrainState;

/// The metrics of sinks. Clones share their values. Unregistered metrics are counted but not
/// exported.
#[derive(Clone, Debug)]
pub struct Metrics {
    drains: Family<StateLabel, Gauge>,
    delivered_lines: Counter,
    resent_lines: Counter,
    lost_lines: Family<ReasonLabel, Counter>,
    gaps: Family<ReasonLabel, Counter>,
    max_lag_seconds: Gauge,
    buffered_bytes: Gauge,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabel {
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: GapLabel,
}

/// Why lines are lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum GapLabel {
    /// A collector recorded the gap, with this reason.
    Collector(&'static str),
    /// The bus did not deliver the lines.
    Undelivered,
    /// This version cannot read the message.
    Unreadable,
    /// The receiver rejected the lines.
    Rejected,
    /// The bus no longer retains the lines (L10).
    Retention,
}

impl GapLabel {
    fn all() -> impl Iterator<Item = Self> {
        let own = [Self::Undelivered, Self::Unreadable, Self::Rejected, Self::Retention];
        GapReason::labels().map(Self::Collector).chain(own)
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Collector(reason) => reason,
            Self::Undelivered => "undelivered",
            Self::Unreadable => "unreadable",
            Self::Rejected => "rejected",
            Self::Retention => "retention",
        }
    }

    /// Whether a collector recorded the gap, so that it is part of the app's log.
    pub(crate) fn is_collectors(self) -> bool {
        matches!(self, Self::Collector(_))
    }
}

impl From<&GapReason> for GapLabel {
    fn from(reason: &GapReason) -> Self {
        Self::Collector(reason.label())
    }
}

impl EncodeLabelValue for GapLabel {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        self.as_str().encode(encoder)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let metrics = Self {
            drains: Family::default(),
            delivered_lines: Counter::default(),
            resent_lines: Counter::default(),
            lost_lines: Family::default(),
            gaps: Family::default(),
            max_lag_seconds: Gauge::default(),
            buffered_bytes: Gauge::default(),
        };
        // Every label value is exported from the start.
        for state in DrainState::ALL {
            drop(metrics.drains.get_or_create(&StateLabel { state: state.as_str() }));
        }
        for reason in GapLabel::all() {
            drop(metrics.lost_lines.get_or_create(&ReasonLabel { reason }));
            drop(metrics.gaps.get_or_create(&ReasonLabel { reason }));
        }
        metrics
    }
}

impl Metrics {
    /// Creates metrics and registers them as `tributary_sinks_…`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let registry = registry.sub_registry_with_prefix("tributary_sinks");
        registry.register("drains", "Drains of this process, by state", metrics.drains.clone());
        registry.register(
            "delivered_lines",
            "Lines whose delivery is confirmed",
            metrics.delivered_lines.clone(),
        );
        registry.register(
            "resent_lines",
            "Lines resent because their delivery was not confirmed",
            metrics.resent_lines.clone(),
        );
        registry.register(
            "lost_lines",
            "Lines not delivered to a receiver, by reason; gaps of unknown size are not counted",
            metrics.lost_lines.clone(),
        );
        registry.register(
            "gaps",
            "Gaps in the lines delivered to a receiver, by reason",
            metrics.gaps.clone(),
        );
        registry.register(
            "max_lag_seconds",
            "Age of the oldest line of any drain that was read from the bus and not sent",
            metrics.max_lag_seconds.clone(),
        );
        registry.register(
            "buffered_bytes",
            "Bytes of unsent and unconfirmed lines in memory",
            metrics.buffered_bytes.clone(),
        );
        metrics
    }

    pub(crate) fn add_delivered(&self, lines: u64) {
        self.delivered_lines.inc_by(lines);
    }

    pub(crate) fn add_resent(&self, lines: u64) {
        self.resent_lines.inc_by(lines);
    }

    pub(crate) fn add_gap(&self, reason: GapLabel, lines: u64) {
        let label = ReasonLabel { reason };
        self.gaps.get_or_create(&label).inc();
        self.lost_lines.get_or_create(&label).inc_by(lines);
    }

    /// Sets the gauges: the number of drains by state, the maximum lag and the buffered bytes.
    pub(crate) fn set_gauges(&self, states: &BTreeMap<&'static str, i64>, lag_seconds: u64, buffered: usize) {
        for state in DrainState::ALL {
            let label = StateLabel { state: state.as_str() };
            let count = states.get(state.as_str()).copied().unwrap_or_default();
            self.drains.get_or_create(&label).set(count);
        }
        self.max_lag_seconds.set(i64::try_from(lag_seconds).unwrap_or(i64::MAX));
        self.buffered_bytes.set(i64::try_from(buffered).unwrap_or(i64::MAX));
    }
}
