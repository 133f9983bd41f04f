//! `tributary collector`: reads the logs of a node's pods and publishes them on the bus.

use std::{path::PathBuf, sync::Arc};

use ::bus::BusSettings;
use clap::{Args, ValueEnum};
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

use crate::{
    admin_listener, descriptors,
    flags::{admin::AdminArgs, bus::BusArgs, collecting::CollectArgs, storage::RetentionArgs, validation::reject},
    kube_client, readiness,
    service::{self, Service},
};

/// Default port of the admin listener.
const ADMIN_PORT: u16 = 9601;

/// Default data directory.
const DATA_DIR: &str = "/var/lib/tributary";

/// Examples at the end of the help.
const EXAMPLES: &str = "\
Examples:
  tributary collector --bus pubsub:my-project --node-name node-1
  tributary collector --bus pubsub:my-project --node-name node-1 --source files
  tributary collector --bus pubsub:my-project --app-rate 1MB --app-burst 20MB";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CollectorArgs {
    #[command(flatten)]
    collect: CollectArgs,
    #[command(flatten)]
    bus: BusArgs,
    #[command(flatten)]
    retention: RetentionArgs,
    #[command(flatten)]
    admin: AdminArgs,
    /// Store checkpoints and the spool in this directory
    #[arg(
        long,
        env = "TRIBUTARY_DATA_DIR",
        value_name = "DIR",
        default_value = DATA_DIR,
        help_heading = "Storage"
    )]
    data_dir: PathBuf,
    /// Compress batches on the bus; see docs/performance.md
    #[arg(
        long,
        env = "TRIBUTARY_COMPRESSION",
        value_name = "METHOD",
        value_enum,
        default_value_t = Compression::Zstd,
        help_heading = "Collecting"
    )]
    compression: Compression,
}

/// Compression of batches.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Compression {
    /// Zstandard, for batches that become smaller
    Zstd,
    /// No compression
    None,
}

/// Runs until `shutdown`.
pub(crate) async fn run(args: CollectorArgs, shutdown: CancellationToken) -> anyhow::Result<()> {
    let mut errors = args.collect.validation_errors();
    errors.extend(args.retention.validation_errors());
    reject(errors)?;
    let kubernetes = kube_client::without_probe().await?;
    // A collector creates no subscription, so all collectors can share one replica name.
    let settings = BusSettings {
        compression: args.compression == Compression::Zstd,
        ..args.bus.settings("collector", args.retention.retention)
    };
    let bus = args.bus.open_with(&settings).await?;
    let admin_listener = admin_listener::bind(args.admin.admin_listen, ADMIN_PORT).await?;
    let mut metrics = Registry::default();
    let (collector_stop, admin_stop) = (CancellationToken::new(), CancellationToken::new());
    let ready = readiness::ready(&bus, Some(kubernetes.clone()), collector_stop.clone());
    let mut config = args.collect.config(&args.data_dir, args.retention.retention);
    config.metrics = collector::Metrics::register(&mut metrics);
    config.max_connections = descriptors::share(1, 1);
    let ready = readiness::with_collector(ready, config.progress.clone(), true);
    let (collector_bus, stop) = (Arc::clone(&bus), collector_stop.clone());
    let collector = Service::start("collector", collector_stop, async move {
        Ok(collector::run(config, kubernetes, collector_bus, stop).await?)
    });
    let admin = Service::start(
        "admin listener",
        admin_stop.clone(),
        admin_listener::run(admin_listener, metrics, ready, admin_stop),
    );
    let ran = service::run(vec![collector, admin], shutdown).await;
    bus.close().await;
    ran
}
