//! What a collector counts.

use std::time::Duration;

use bus::GapReason;
use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

use crate::heard::Heard;

/// Publishing takes from half a millisecond (a synced batch on this machine) to some seconds (a bus in trouble).
const PUBLISH_SECONDS: [f64; 10] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 0.5, 2.5, 10.0];

/// A collector's metrics: clones count together. Unregistered, they are counted and not shown.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub(crate) lines: Counter,
    pub(crate) bytes: Counter,
    pub(crate) batches: Counter,
    pub(crate) publishing: Histogram,
    pub(crate) refusals: Counter,
    pub(crate) follows: Gauge,
    pub(crate) polled: Gauge,
    pub(crate) looks: Counter,
    pub(crate) heard: Heard,
    spool: Gauge,
    reconnects: Family<Again, Counter>,
    losses: Family<Lost, Counter>,
    lost_lines: Family<Lost, Counter>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Again {
    reason: Ended,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Lost {
    reason: Reason,
}

/// Why a log is asked for again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[expect(non_camel_case_types, reason = "printed as they are: label values are lower case")]
pub(crate) enum Ended {
    /// It ended cleanly, which says nothing about why.
    clean_end,
    /// The connection broke, or the answer was an error.
    broken,
    /// The collector's account may not read it.
    refused,
    /// The API server said when to come again.
    busy,
    /// It was open and brought nothing, though there were lines.
    silent,
    /// The node has no follow left for it: it is polled.
    no_follow,
    /// It was renewed before the kubelet ends it.
    renewed,
    /// The instance's state changed.
    changed,
}

/// Why lines are lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[expect(non_camel_case_types, reason = "printed as they are: label values are lower case")]
pub(crate) enum Reason {
    away,
    gone,
    rotated,
    spool,
    limit,
    refused,
    other,
}

impl From<&GapReason> for Reason {
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
            publishing: Histogram::new(PUBLISH_SECONDS),
            refusals: Counter::default(),
            follows: Gauge::default(),
            polled: Gauge::default(),
            looks: Counter::default(),
            heard: Heard::default(),
            spool: Gauge::default(),
            reconnects: Family::default(),
            losses: Family::default(),
            lost_lines: Family::default(),
        }
    }
}

impl Metrics {
    /// Metrics that are shown with this registry's, as `tributary_collector_…`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        for reason in [
            Ended::clean_end,
            Ended::broken,
            Ended::refused,
            Ended::busy,
            Ended::silent,
            Ended::no_follow,
            Ended::renewed,
            Ended::changed,
        ] {
            drop(metrics.reconnects.get_or_create(&Again { reason }));
        }
        for reason in [
            Reason::away,
            Reason::gone,
            Reason::rotated,
            Reason::spool,
            Reason::limit,
            Reason::refused,
            Reason::other,
        ] {
            drop(metrics.losses.get_or_create(&Lost { reason }));
            drop(metrics.lost_lines.get_or_create(&Lost { reason }));
        }
        let registry = registry.sub_registry_with_prefix("tributary_collector");
        registry.register("lines", "Lines that were read and numbered", metrics.lines.clone());
        registry.register("bytes", "Bytes of them, timestamps included", metrics.bytes.clone());
        registry.register("batches", "Batches that the bus accepted", metrics.batches.clone());
        registry.register_with_unit(
            "publish",
            "From a batch's handing over to its acceptance",
            Unit::Seconds,
            metrics.publishing.clone(),
        );
        registry.register(
            "publish_refusals",
            "Attempts that the bus refused for now",
            metrics.refusals.clone(),
        );
        registry.register("follows", "Logs that are followed", metrics.follows.clone());
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
            metrics.looks.clone(),
        );
        registry.register("losses", "Losses that were told", metrics.losses.clone());
        registry.register(
            "lost_lines",
            "Lines that were told to be lost, where their count is known",
            metrics.lost_lines.clone(),
        );
        registry.register_collector(Box::new(metrics.heard.clone()));
        metrics
    }

    pub(crate) fn published(&self, took: Duration) {
        self.batches.inc();
        self.publishing.observe(took.as_secs_f64());
    }

    pub(crate) fn asked_again(&self, reason: Ended) {
        self.reconnects.get_or_create(&Again { reason }).inc();
    }

    pub(crate) fn lost(&self, reason: Reason, lines: u64) {
        let lost = Lost { reason };
        self.losses.get_or_create(&lost).inc();
        self.lost_lines.get_or_create(&lost).inc_by(lines);
    }

    pub(crate) fn spooled(&self, bytes: u64) {
        self.spool.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }
}
