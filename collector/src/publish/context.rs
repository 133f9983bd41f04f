//! What goes to the bus, and what all streams share on the way.

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
    /// What an app may print. `None`: what it likes.
    pub rate_limits: Option<Arc<RateLimits>>,
    /// See [`Config::publish_wait`](crate::Config::publish_wait).
    pub publish_wait: Duration,
}
