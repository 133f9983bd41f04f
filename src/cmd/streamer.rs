//! `tributary streamer`: serves clients from the bus.

use std::sync::Arc;

use anyhow::Context;
use clap::Args;
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

use crate::{
    admin_listener, console, descriptors,
    flags::{
        admin::AdminArgs,
        bus::{BusArgs, replica_name},
        reading::ReadArgs,
        registry::RegistryArgs,
        storage::RetentionArgs,
        validation::reject,
    },
    readiness,
    service::{self, Service},
};

/// Default port of the admin listener.
const ADMIN_PORT: u16 = 9602;

/// Examples at the end of the help.
const EXAMPLES: &str = "\
Examples:
  tributary streamer --bus pubsub:my-project
  tributary streamer --bus pubsub:my-project --listen 0.0.0.0:8080 --auth keys --registry kubernetes:tributary
  tributary streamer --bus pubsub:my-project --listen 0.0.0.0:8443 --auth kubernetes --tls-cert tls.crt --tls-key tls.key";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct StreamerArgs {
    #[command(flatten)]
    read: ReadArgs,
    #[command(flatten)]
    bus: BusArgs,
    #[command(flatten)]
    registry: RegistryArgs,
    #[command(flatten)]
    retention: RetentionArgs,
    #[command(flatten)]
    admin: AdminArgs,
    /// Name this replica on the bus: unique among running replicas and stable over restarts
    /// [default: host name and port of --listen]
    #[arg(long, env = "TRIBUTARY_REPLICA_NAME", value_name = "NAME", help_heading = "Admin")]
    replica_name: Option<String>,
}

/// Runs until `shutdown`.
pub(crate) async fn run(args: StreamerArgs, shutdown: CancellationToken) -> anyhow::Result<()> {
    let mut errors = args.read.validation_errors();
    errors.extend(args.retention.validation_errors());
    reject(errors)?;
    let listener = args.read.bind().await?;
    let registry = args.registry.open(None).await?;
    let access = args.read.access(registry.clone(), None).await?;
    let drains = args.read.drain_service(registry)?;
    let addr = listener
        .local_addr()
        .context("cannot read the address of the listener")?;
    let replica = args.replica_name.clone().unwrap_or_else(|| replica_name(addr));
    let bus = args.bus.open(&replica, args.retention.retention).await?;
    let listener = args.read.listener(listener)?;
    console::eprintln_line(&format!("listening on {}", args.read.url(addr)));
    let admin_listener = admin_listener::bind(args.admin.admin_listen, ADMIN_PORT).await?;
    let mut metrics = Registry::default();
    let (streamer_stop, admin_stop) = (CancellationToken::new(), CancellationToken::new());
    let ready = readiness::ready(&bus, None, streamer_stop.clone());
    let mut config = args.read.config(args.retention.retention);
    config.max_connections = descriptors::share(1, 1);
    let streamer_metrics = streamer::Metrics::register(&mut metrics);
    let (streamer_bus, stop) = (Arc::clone(&bus), streamer_stop.clone());
    let streamer = Service::start("streamer", streamer_stop, async move {
        Ok(streamer::run(config, access, drains, listener, streamer_bus, streamer_metrics, stop).await?)
    });
    let (housekeeping_bus, housekeeping_stop) = (Arc::clone(&bus), CancellationToken::new());
    let stop = housekeeping_stop.clone();
    let housekeeping = Service::start("housekeeping", housekeeping_stop, async move {
        stop.run_until_cancelled(housekeeping_bus.run_housekeeping()).await;
        Ok(())
    });
    let admin = Service::start(
        "admin listener",
        admin_stop.clone(),
        admin_listener::run(admin_listener, metrics, ready, admin_stop),
    );
    let ran = service::run(vec![streamer, housekeeping, admin], shutdown).await;
    bus.close().await;
    ran
}
