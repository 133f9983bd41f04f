//! What all drains of a process share.

use std::sync::Arc;

use bus::Bus;
use registry::Registry;

use crate::{budget::MemoryBudget, config::Config, metrics::Metrics, transport::connect::Connector};

/// What all drains of a process share.
pub(crate) struct DrainContext {
    pub(crate) config: Config,
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) registry: Arc<dyn Registry>,
    pub(crate) connector: Connector,
    pub(crate) budget: Arc<MemoryBudget>,
    pub(crate) metrics: Metrics,
}
