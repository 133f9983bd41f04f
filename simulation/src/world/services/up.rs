//! All services in one process on the embedded bus, composed as `tributary up` composes them.

use std::{net::SocketAddr, path::Path, sync::Arc};

use anyhow::Context;
use bus::{BusAddress, BusSettings};
use prometheus_client::registry::Registry as Metrics;
use registry::{FileRegistry, Registry};
use streamer::Access;
use tokio_util::sync::CancellationToken;

use super::{
    DATA_DIR, Exported, Start, service,
    settings::{addresses, collector_config, drains, start},
};
use crate::{
    plan::{Plan, Source},
    world::{hosts::SERVER_PORT, node},
};

/// Returns what starts the process.
pub fn starter(plan: &Plan, kubernetes: node::Service, exported: Exported) -> Start {
    let source = plan.source;
    Arc::new(move |stop| {
        let (kubernetes, exported) = (kubernetes.clone(), exported.clone());
        Box::pin(run(source, kubernetes, exported, stop))
    })
}

async fn run(
    source: Source,
    kubernetes: node::Service,
    exported: Exported,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let data = Path::new(DATA_DIR);
    let settings = BusSettings::new("up");
    system::files::create_dir_all(&data.join("bus")).context("cannot create the directory of the bus")?;
    let bus = BusAddress::Embedded(data.join("bus")).open(&settings).await?;
    let registry: Arc<dyn Registry> = Arc::new(FileRegistry::open(data.join("registry.json")).await?);
    let client = kube::Client::new(kubernetes, "default");
    let mut metrics = Metrics::default();

    let config = collector_config(source, data, &mut metrics);
    let collector_bus = Arc::clone(&bus);
    let collector = start("collector", |stop| async move {
        Ok(collector::run(config, client, collector_bus, stop).await?)
    });

    let listener = system::net::bind(SocketAddr::from(([10, 0, 0, 2], SERVER_PORT))).await?;
    let drains = drains(Arc::clone(&registry))?;
    let (streamer_bus, streamer_metrics) = (Arc::clone(&bus), streamer::Metrics::register(&mut metrics));
    let streamer = start("streamer", |stop| async move {
        let (config, access) = (streamer::Config::default(), Access::unauthenticated());
        Ok(streamer::run(config, access, drains, listener, streamer_bus, streamer_metrics, stop).await?)
    });

    let config = sinks::Config {
        addresses: addresses()?,
        holder: "up".to_owned(),
        ..sinks::Config::default()
    };
    let sinks_metrics = sinks::Metrics::register(&mut metrics);
    let sinks = start("sinks", |stop| async move {
        Ok(sinks::run(config, registry, bus, sinks_metrics, stop).await?)
    });
    exported.add("collector", metrics);
    service::run(vec![collector, streamer, sinks], stop).await
}
