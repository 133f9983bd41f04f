//! `tributary sinks`: forwards lines from the bus to drains.

use std::{str::FromStr, sync::Arc};

use anyhow::{Context, bail};
use clap::Args;
use prometheus_client::registry::Registry;
use sinks::{Config, Replica};
use tokio_util::sync::CancellationToken;

use crate::{
    admin_listener,
    flags::{
        admin::AdminArgs,
        bus::{BusArgs, replica_name},
        drains::SendArgs,
        registry::RegistryArgs,
        storage::RetentionArgs,
        validation::reject,
    },
    readiness,
    service::{self, Service},
};

/// Default port of the admin listener.
const ADMIN_PORT: u16 = 9603;

/// Examples at the end of the help.
const EXAMPLES: &str = "\
Examples:
  tributary sinks --bus pubsub:my-project --registry kubernetes:tributary
  tributary sinks --bus pubsub:my-project --registry file:registry.json --allow-address 10.1.0.0/16
  tributary sinks --bus pubsub:my-project --registry kubernetes:tributary --replica 0/3";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct SinksArgs {
    #[command(flatten)]
    send: SendArgs,
    /// Send the share of drains of replica I of N, counted from 0: of three replicas 0/3, 1/3 and
    /// 2/3
    #[arg(
        long,
        env = "TRIBUTARY_REPLICA",
        value_name = "I/N",
        default_value = "0/1",
        help_heading = "Drains"
    )]
    replica: ReplicaArg,
    #[command(flatten)]
    bus: BusArgs,
    #[command(flatten)]
    registry: RegistryArgs,
    #[command(flatten)]
    retention: RetentionArgs,
    #[command(flatten)]
    admin: AdminArgs,
    /// Name this replica: unique among running replicas and stable over restarts [default: host
    /// name and port of the admin listener]
    #[arg(long, env = "TRIBUTARY_REPLICA_NAME", value_name = "NAME", help_heading = "Admin")]
    replica_name: Option<String>,
}

/// The value of `--replica`.
#[derive(Clone, Copy)]
struct ReplicaArg(Replica);

impl FromStr for ReplicaArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.split_once('/').and_then(|(index, count)| {
            let (index, count) = (index.parse().ok()?, count.parse().ok()?);
            (index < count).then_some(Replica { index, count })
        });
        parsed
            .map(Self)
            .ok_or_else(|| "expected I/N with I from 0 to N-1: the first of three replicas is 0/3".to_owned())
    }
}

/// Runs until `shutdown`.
pub(crate) async fn run(args: SinksArgs, shutdown: CancellationToken) -> anyhow::Result<()> {
    reject(args.retention.validation_errors())?;
    let Some(registry) = args.registry.open(None).await? else {
        bail!("sinks needs a registry of drains; set --registry file:PATH or --registry kubernetes:NAMESPACE");
    };
    let admin_listener = admin_listener::bind(args.admin.admin_listen, ADMIN_PORT).await?;
    let addr = admin_listener
        .local_addr()
        .context("cannot read the address of the admin listener")?;
    let holder = args.replica_name.clone().unwrap_or_else(|| replica_name(addr));
    let bus = args.bus.open(&holder, args.retention.retention).await?;
    let mut metrics = Registry::default();
    let (sinks_stop, admin_stop) = (CancellationToken::new(), CancellationToken::new());
    let ready = readiness::ready(&bus, None, sinks_stop.clone());
    let config = Config {
        replica: args.replica.0,
        ..args.send.config(args.retention.retention, holder)
    };
    tracing::info!(drains = registry.drains().borrow().len(), "drains loaded");
    let sinks_metrics = sinks::Metrics::register(&mut metrics);
    let (sinks_bus, stop) = (Arc::clone(&bus), sinks_stop.clone());
    let sinks = Service::start("sinks", sinks_stop, async move {
        Ok(sinks::run(config, registry, sinks_bus, sinks_metrics, stop).await?)
    });
    let admin = Service::start(
        "admin listener",
        admin_stop.clone(),
        admin_listener::run(admin_listener, metrics, ready, admin_stop),
    );
    let ran = service::run(vec![sinks, admin], shutdown).await;
    bus.close().await;
    ran
}
