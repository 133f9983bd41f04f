//! The state that all HTTP handlers share.

use std::sync::Arc;

use bus::Bus;
use tokio_util::sync::CancellationToken;

use super::drains::service::DrainService;
use crate::{access::Access, config::Config, hub::hubs::Hubs, metrics::Metrics, tail_limits::TailLimits};

/// Shared state of the HTTP server.
pub(crate) struct AppState {
    pub(crate) hubs: Arc<Hubs>,
    pub(crate) access: Access,
    pub(crate) drains: DrainService,
    pub(crate) tail_limits: Arc<TailLimits>,
}

impl AppState {
    pub(crate) fn new(
        config: Config,
        access: Access,
        drains: DrainService,
        bus: Arc<dyn Bus>,
        metrics: Metrics,
        shutdown: CancellationToken,
    ) -> Arc<Self> {
        Arc::new(Self {
            hubs: Hubs::new(config, bus, metrics, shutdown),
            access,
            drains,
            tail_limits: Arc::default(),
        })
    }
}
