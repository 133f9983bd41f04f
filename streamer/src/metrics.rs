//! What a streamer counts.

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

/// A streamer's metrics: clones count together. Unregistered, they are counted and not shown.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    pub(crate) hubs: Gauge,
    pub(crate) tails: Gauge,
    pub(crate) lines: Counter,
    pub(crate) late_lines: Counter,
    pub(crate) missing_lines: Family<Missing, Counter>,
    pub(crate) unreadable_batches: Counter,
    pub(crate) interruptions: Counter,
    pub(crate) overflowed_lines: Counter,
    pub(crate) read_backs: Counter,
    pub(crate) stalled_connections: Counter,
    pub(crate) ring_bytes: Gauge,
    pub(crate) history_bytes: Gauge,
}

/// Which lines are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Missing {
    pub(crate) cause: Cause,
}

/// Who knows of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[expect(non_camel_case_types, reason = "printed as they are: label values are lower case")]
pub(crate) enum Cause {
    /// Nobody told: they did not arrive.
    undelivered,
    /// The collector told.
    collector,
}

impl Metrics {
    /// Metrics that are shown with this registry's, as `tributary_streamer_…`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        for cause in [Cause::undelivered, Cause::collector] {
            drop(metrics.missing_lines.get_or_create(&Missing { cause }));
        }
        let registry = registry.sub_registry_with_prefix("tributary_streamer");
        registry.register("hubs", "Apps that are being read", metrics.hubs.clone());
        registry.register("tails", "Clients that read an app", metrics.tails.clone());
        registry.register("lines", "Lines that hubs have shown", metrics.lines.clone());
        registry.register(
            "late_lines",
            "Lines shown after their gap was told",
            metrics.late_lines.clone(),
        );
        registry.register(
            "missing_lines",
            "Lines told to be missing",
            metrics.missing_lines.clone(),
        );
        registry.register(
            "unreadable_batches",
            "Batches left out: of a version that is not known",
            metrics.unreadable_batches.clone(),
        );
        registry.register(
            "interruptions",
            "Readings of the bus that were interrupted, and told so",
            metrics.interruptions.clone(),
        );
        registry.register(
            "overflowed_lines",
            "Lines that slow tails missed (L11)",
            metrics.overflowed_lines.clone(),
        );
        registry.register(
            "read_backs",
            "Times that history was read from the bus",
            metrics.read_backs.clone(),
        );
        registry.register(
            "history_bytes",
            "Bytes of history that are yet to be sent: lines and their renderings",
            metrics.history_bytes.clone(),
        );
        registry.register(
            "ring_bytes",
            "Bytes that all rings keep: lines and their renderings",
            metrics.ring_bytes.clone(),
        );
        registry.register(
            "stalled_connections",
            "Connections closed because the client took nothing for too long",
            metrics.stalled_connections.clone(),
        );
        metrics
    }
}
