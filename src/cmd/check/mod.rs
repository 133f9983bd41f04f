//! `tributary check`: checks a deployment end to end and reports problems.

mod bus;
mod canary;
mod clock;
mod cluster;
mod dns;
mod permissions;
mod report;
mod server;

use std::time::Duration;

use clap::Args;
use collector::AppFrom;

use crate::flags::{bus::BusArgs, registry::RegistryArgs, server::ServerArgs, storage::RetentionArgs};
use clock::Clocks;
use report::{Report, count};

/// Examples at the end of the help.
const EXAMPLES: &str = "\
Examples:
  tributary check
  tributary check --bus pubsub:my-project --server http://streamer.tributary:8080
  tributary check --bus pubsub:my-project --registry kubernetes:tributary --accounts tributary";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// Wait this long for a container to print the line that is traced
    #[arg(
        long,
        alias = "wait",
        value_name = "TIME",
        default_value = "20s",
        value_parser = crate::flags::values::duration
    )]
    timeout: Duration,
    /// Name a pod's app after its `namespace` or its `label:KEY`
    #[arg(
        long,
        env = "TRIBUTARY_APP_FROM",
        value_name = "RULE",
        default_value = "namespace",
        help_heading = "Collecting"
    )]
    app_from: AppFrom,
    /// Check the permissions of the service accounts in this namespace; requires `create` on
    /// subjectaccessreviews [default: only the caller's permissions]
    #[arg(
        long,
        env = "TRIBUTARY_ACCOUNTS",
        value_name = "NAMESPACE",
        help_heading = "Auth & TLS"
    )]
    accounts: Option<String>,
    /// Check this bus: `pubsub:PROJECT[,PROJECT…]` [default: no bus, as with `tributary up`, which
    /// embeds one]
    #[arg(long, env = "TRIBUTARY_BUS", value_name = "BUS", help_heading = "Storage", value_parser = ::bus::BusAddress::parse_shared)]
    bus: Option<::bus::BusAddress>,
    #[command(flatten)]
    retention: RetentionArgs,
    #[command(flatten)]
    registry: RegistryArgs,
}

/// Runs every check; a failure of one part does not skip the others.
///
/// # Errors
/// Fails if at least one verdict is FAIL.
pub(crate) async fn run(args: CheckArgs) -> anyhow::Result<()> {
    let (mut report, mut clocks) = (Report::default(), Clocks::default());
    let bus = bus::check(
        &mut report,
        &mut clocks,
        args.bus.clone().map(BusArgs::from),
        args.retention.retention,
    )
    .await;
    let cluster = cluster::check(&mut report, &mut clocks).await;
    if let Some(cluster) = &cluster {
        permissions::check(
            &mut report,
            cluster,
            args.accounts.as_deref(),
            args.registry.namespace(),
        )
        .await;
    }
    let containers = match &cluster {
        Some(cluster) => cluster::containers(&mut report, cluster, &args.app_from, bus.as_deref()).await,
        None => Vec::new(),
    };
    check_registry(&mut report, &args.registry).await;
    let server = server::check(&mut report, &mut clocks, &args.server).await;
    match &cluster {
        Some(cluster) if !containers.is_empty() => {
            let canary = canary::Canary {
                cluster,
                bus: bus.as_deref(),
                server: server.as_ref(),
                timeout: args.timeout,
            };
            canary.check(&mut report, &mut clocks, containers).await;
        }
        _ => report.skip(
            "canary",
            "no container to trace a line of; deploy an app and run the check again",
        ),
    }
    clocks.report(&mut report);
    if let Some(bus) = bus {
        bus.close().await;
    }
    report.conclude()
}

/// Opens the registry and counts its drains and keys.
async fn check_registry(report: &mut Report, args: &RegistryArgs) {
    match args.open_existing(None).await {
        Ok(None) => report.skip("registry", "no registry set; set --registry to check it"),
        Ok(Some(registry)) => {
            let (drains, keys) = (registry.drains().borrow().len(), registry.keys().borrow().list().len());
            report.ok(
                "registry",
                format!("readable, {}, {}", count(drains, "drain"), count(keys, "key")),
            );
        }
        Err(error) => report.fail("registry", format!("{error:#}")),
    }
}
