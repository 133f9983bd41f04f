//! What sinks count.

use std::collections::BTreeMap;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use registry::{DrainReport, DrainState};

/// The metrics of sinks: clones count together. Unregistered, they are counted and not shown.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    drains: Family<State, Gauge>,
    delivered_lines: Counter,
    resent_lines: Counter,
    dropped_lines: Counter,
    max_lag_seconds: Gauge,
    held_bytes: Gauge,
}

/// Of a drain.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct State {
    state: &'static str,
}

impl Metrics {
    /// Metrics that are shown with this registry's, as `tributary_sinks_…`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        for state in [DrainState::Connecting, DrainState::Connected, DrainState::Failing] {
            drop(metrics.drains.get_or_create(&State { state: state.name() }));
        }
        let registry = registry.sub_registry_with_prefix("tributary_sinks");
        registry.register("drains", "Drains that are read here, by state", metrics.drains.clone());
        registry.register(
            "delivered_lines",
            "Lines that receivers have for sure",
            metrics.delivered_lines.clone(),
        );
        registry.register(
            "resent_lines",
            "Lines that were sent again",
            metrics.resent_lines.clone(),
        );
        registry.register(
            "dropped_lines",
            "Lines that receivers will never have: refused, or gone from the bus",
            metrics.dropped_lines.clone(),
        );
        registry.register(
            "max_lag_seconds",
            "How old the oldest line is that was read and is not sent, of all drains",
            metrics.max_lag_seconds.clone(),
        );
        registry.register(
            "held_bytes",
            "Bytes of lines that drains hold",
            metrics.held_bytes.clone(),
        );
        metrics
    }

    /// Counts what has happened to a drain since it was last counted.
    pub(crate) fn count(&self, counted: &mut DrainReport, report: &DrainReport) {
        self.delivered_lines
            .inc_by(report.delivered.saturating_sub(counted.delivered));
        self.resent_lines.inc_by(report.resent.saturating_sub(counted.resent));
        self.dropped_lines
            .inc_by(report.dropped.saturating_sub(counted.dropped));
        counted.clone_from(report);
    }

    pub(crate) fn look(&self, states: &BTreeMap<&'static str, i64>, lag_seconds: u64, held: usize) {
        for state in [DrainState::Connecting, DrainState::Connected, DrainState::Failing] {
            let label = State { state: state.name() };
            self.drains
                .get_or_create(&label)
                .set(states.get(state.name()).copied().unwrap_or_default());
        }
        self.max_lag_seconds.set(i64::try_from(lag_seconds).unwrap_or(i64::MAX));
        self.held_bytes.set(i64::try_from(held).unwrap_or(i64::MAX));
    }
}
