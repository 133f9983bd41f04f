//! All services in one process on the embedded bus, composed as `tributary up` composes them.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use anyhow::Context;
use bus::{BusAddress, BusSettings};
use prometheus_client::registry::Registry as Metrics;
use registry::{AddressPolicy, FileRegistry, Registry};
use streamer::{Access, DrainService};
use tokio_util::sync::CancellationToken;

use super::{DATA_DIR, Start};
use crate::{
    plan::{Plan, Source},
    world::{clients::SERVER_PORT, node},
};

/// Limit for the end of one service; a service that does not end is a failure.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(12);

/// Returns what starts the process.
pub fn start(plan: &Plan, kubernetes: node::Service) -> Start {
    let source = plan.source;
    Arc::new(move |stop| {
        let kubernetes = kubernetes.clone();
        Box::pin(run(source, kubernetes, stop))
    })
}

async fn run(source: Source, kubernetes: node::Service, stop: CancellationToken) -> anyhow::Result<()> {
    let data = Path::new(DATA_DIR);
    let settings = BusSettings::new("up");
    system::files::create_dir_all(&data.join("bus")).context("cannot create the directory of the bus")?;
    let bus = BusAddress::Embedded(data.join("bus")).open(&settings).await?;
    let registry: Arc<dyn Registry> = Arc::new(FileRegistry::open(data.join("registry.json")).await?);
    let addresses = AddressPolicy::with_allowed(vec!["10.0.0.0/8".parse()?]);
    let client = kube::Client::new(kubernetes, "default");
    let mut metrics = Metrics::default();

    let collector_config = collector_config(source, data, &mut metrics);
    let collector_stop = CancellationToken::new();
    let mut collector = system::task::spawn(collector::run(
        collector_config,
        client,
        Arc::clone(&bus),
        collector_stop.clone(),
    ));

    let listener = system::net::bind(SocketAddr::from(([10, 0, 0, 2], SERVER_PORT))).await?;
    let drains = DrainService::new(Some(Arc::clone(&registry))).with_limits(addresses.clone(), 5);
    let streamer_stop = CancellationToken::new();
    let mut streamer = system::task::spawn(streamer::run(
        streamer::Config::default(),
        Access::unauthenticated(),
        drains,
        listener,
        Arc::clone(&bus),
        streamer::Metrics::register(&mut metrics),
        streamer_stop.clone(),
    ));

    let sinks_config = sinks::Config {
        addresses,
        holder: "up".to_owned(),
        ..sinks::Config::default()
    };
    let sinks_stop = CancellationToken::new();
    let mut sinks = system::task::spawn(sinks::run(
        sinks_config,
        registry,
        Arc::clone(&bus),
        sinks::Metrics::register(&mut metrics),
        sinks_stop.clone(),
    ));

    tokio::select! {
        () = stop.cancelled() => {}
        ended = &mut collector => ended.context("the collector")?.context("the collector")?,
        ended = &mut streamer => ended.context("the streamer")?.context("the streamer")?,
        ended = &mut sinks => ended.context("sinks")?.context("sinks")?,
    }
    if !stop.is_cancelled() {
        anyhow::bail!("a service ended by itself");
    }
    collector_stop.cancel();
    tokio::time::timeout(SHUTDOWN_DEADLINE, collector)
        .await
        .context("the collector does not stop")???;
    streamer_stop.cancel();
    tokio::time::timeout(SHUTDOWN_DEADLINE, streamer)
        .await
        .context("the streamer does not stop")???;
    sinks_stop.cancel();
    tokio::time::timeout(SHUTDOWN_DEADLINE, sinks)
        .await
        .context("sinks do not stop")???;
    Ok(())
}

fn collector_config(source: Source, data: &Path, metrics: &mut Metrics) -> collector::Config {
    let mut config = collector::Config::new(data.join("checkpoints"));
    config.node_name = Some("node-1".to_owned());
    config.metrics = collector::Metrics::register(metrics);
    if source == Source::Files {
        config.source = collector::Source::Files;
        config.pod_log_dir = node::LOG_DIR.into();
    }
    config
}
