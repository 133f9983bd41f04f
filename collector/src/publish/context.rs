//! Objects that all streams publish through.

use std::{sync::Arc, time::Duration};

use bus::Bus;

use crate::metrics::Metrics;

use super::{checkpoint::CheckpointStore, rate_limit::RateLimits, spool::Spool};

/// What all streams publish through.
#[derive(Clone)]
pub struct PublishContext {
    pub bus: Arc<dyn Bus>,
    pub checkpoints: CheckpointStore,
    pub spool: Arc<Spool>,
    pub metrics: Metrics,
    /// `None`: no rate limit.
    pub rate_limits: Option<Arc<RateLimits>>,
    /// See [`Config::publish_wait`](crate::Config::publish_wait).
    pub publish_wait: Duration,
}
