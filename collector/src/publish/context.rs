//! Objects that all streams publish through.

use std::{sync::Arc, time::Duration};

use bus::Bus;

use crate::{
    instance::Instance,
    metrics::Metrics,
    report::{ContainerReport, UnreadableContainers},
};

use super::{checkpoint::CheckpointStore, notices::Notices, rate_limit::RateLimits, spool::Spool};

/// What all streams publish through.
#[derive(Clone)]
pub struct PublishContext {
    pub bus: Arc<dyn Bus>,
    pub checkpoints: CheckpointStore,
    pub spool: Arc<Spool>,
    pub metrics: Metrics,
    /// `None`: no rate limit.
    pub rate_limits: Option<Arc<RateLimits>>,
    pub notices: Notices,
    pub unreadable: UnreadableContainers,
    /// See [`Config::publish_wait`](crate::Config::publish_wait).
    pub publish_wait: Duration,
}

impl PublishContext {
    /// Returns the reports about an instance.
    pub fn report(&self, instance: &Instance) -> ContainerReport {
        ContainerReport::new(
            instance.app.clone(),
            instance.process.clone(),
            self.unreadable.clone(),
            self.notices.clone(),
            self.metrics.unreadable.clone(),
        )
    }
}
