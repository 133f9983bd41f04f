//! `tributary collector`: the collector of a node, publishing to a cluster's bus.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use ::bus::PubSubSettings;
use clap::{Args, ValueEnum};
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

use crate::{
    admin,
    flags::bus::BusArgs,
    flags::{AdminArgs, CollectArgs, KeepArgs, refuse},
    kube_client as client,
    service::{self, Service},
    stack,
};

/// Where probes ask, unless told otherwise.
const ADMIN_PORT: u16 = 9601;

/// Where checkpoints lie, unless told otherwise.
const DATA_DIR: &str = "/var/lib/tributary";

#[derive(Args)]
pub(crate) struct CollectorArgs {
    #[command(flatten)]
    bus: BusArgs,
    #[command(flatten)]
    collect: CollectArgs,
    #[command(flatten)]
    keep: KeepArgs,
    #[command(flatten)]
    admin: AdminArgs,
    /// What is kept on this machine: how far was read, and what the bus has not taken yet
    #[arg(long, env = "TRIBUTARY_DATA_DIR", value_name = "DIR", default_value = DATA_DIR)]
    data_dir: PathBuf,
    /// How lines are compressed on the bus; docs/performance.md says what that saves and costs
    #[arg(long, env = "TRIBUTARY_COMPRESSION", value_enum, default_value_t = Compression::Zstd)]
    compression: Compression,
}

/// How lines are compressed on the bus.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Compression {
    /// Where that makes a batch smaller; streamers and sinks of this version or later read it
    Zstd,
    /// Not at all
    None,
}

/// Runs until told to stop.
pub(crate) async fn run(args: CollectorArgs, shutdown: CancellationToken) -> anyhow::Result<()> {
    let mut wrong = args.collect.mistakes();
    wrong.extend(args.keep.mistakes());
    refuse(&wrong)?;
    let client = client::unasked().await?;
    // It makes no subscription, so no two collectors can be taken for each other.
    let settings = PubSubSettings {
        compression: args.compression == Compression::Zstd,
        ..args.bus.settings("collector", args.keep.retention)
    };
    let bus = args.bus.open_with(settings).await?;
    let admin_listener = admin::bind(args.admin.admin_listen, ADMIN_PORT).await?;
    let mut registry = Registry::default();
    let (collector_stop, admin_stop) = (CancellationToken::new(), CancellationToken::new());
    let ready = stack::ready(Arc::clone(&bus), client.clone(), collector_stop.clone());
    let mut config = args.collect.config(Path::new(&args.data_dir), args.keep.retention);
    config.metrics = collector::Metrics::register(&mut registry);
    let (collector_bus, stop) = (Arc::clone(&bus), collector_stop.clone());
    let collector = Service::start("collector", collector_stop, async move {
        Ok(collector::run(config, client, collector_bus, stop).await?)
    });
    let admin = Service::start(
        "admin listener",
        admin_stop.clone(),
        admin::run(admin_listener, registry, ready, admin_stop),
    );
    let ran = service::run(vec![collector, admin], shutdown).await;
    bus.close().await;
    ran
}
