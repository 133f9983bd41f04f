//! What both compositions of the services have in common.

use std::{path::Path, sync::Arc};

use prometheus_client::registry::Registry as Metrics;
use registry::{AddressPolicy, Registry};
use streamer::{DrainService, MAX_DRAINS};

use tokio_util::sync::CancellationToken;

use super::service::Service;
use crate::{plan::Source, world::node};

/// Starts a service with a token of its own, at whose cancellation it must return.
pub fn start<F>(name: &'static str, run: impl FnOnce(CancellationToken) -> F) -> Service
where
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let stop = CancellationToken::new();
    Service::start(name, stop.clone(), run(stop))
}

/// Returns the addresses that drains may connect to: the simulated hosts.
pub fn addresses() -> anyhow::Result<AddressPolicy> {
    Ok(AddressPolicy::with_allowed(vec!["10.0.0.0/8".parse()?]))
}

/// Returns the drains of a registry, as the streamer manages them.
pub fn drains(registry: Arc<dyn Registry>) -> anyhow::Result<DrainService> {
    Ok(DrainService::new(Some(registry)).with_limits(addresses()?, MAX_DRAINS))
}

/// Returns the settings of the collector.
pub fn collector_config(source: Source, data: &Path, metrics: &mut Metrics) -> collector::Config {
    let mut config = collector::Config::new(data.join("checkpoints"));
    config.node_name = Some("node-1".to_owned());
    config.metrics = collector::Metrics::register(metrics);
    if source == Source::Files {
        config.source = collector::Source::Files;
        config.pod_log_dir = node::LOG_DIR.into();
    }
    config
}
