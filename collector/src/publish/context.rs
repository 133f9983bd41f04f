//! What goes to the bus, and what all streams share on the way.

use std::{sync::Arc, time::Duration};

use bus::Bus;

use crate::metrics::Metrics;

use super::{checkpoint::Checkpoints, rate_limit::Limits, spool::Spool};

/// What all streams publish through.
#[derive(Clone)]
pub struct Way {
    pub bus: Arc<dyn Bus>,
    pub checkpoints: Checkpoints,
    pub spool: Arc<Spool>,
    pub metrics: Metrics,
    /// What an app may print. `None`: what it likes.
    pub limits: Option<Arc<Limits>>,
    /// See [`Config::publish_wait`](crate::Config::publish_wait).
    pub publish_wait: Duration,
}
