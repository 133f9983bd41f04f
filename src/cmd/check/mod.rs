//! `tributary check`: looks at a deployment as an operator would, from its bus to a line's whole way, and says what is wrong.

mod bus;
mod canary;
mod clock;
mod cluster;
mod report;
mod rights;
mod server;

use std::time::Duration;

use clap::Args;
use collector::AppFrom;

use crate::{
    api_client::ServerArgs,
    flags::KeepArgs,
    flags::bus::{BusArgs, BusName},
    flags::registry::RegistryArgs,
};
use clock::Clocks;
use report::{Report, count};

#[derive(Args)]
pub(crate) struct CheckArgs {
    /// The bus: `pubsub:PROJECT` or `pubsub:PROJECT,PROJECT,…` [default: none is looked at, as with `tributary up`, which has one of its own]
    #[arg(long, env = "TRIBUTARY_BUS", value_name = "BUS")]
    bus: Option<BusName>,
    #[command(flatten)]
    keep: KeepArgs,
    #[command(flatten)]
    registry: RegistryArgs,
    #[command(flatten)]
    server: ServerArgs,
    /// What names a pod's app: `namespace`, or `label:KEY`
    #[arg(long, env = "TRIBUTARY_APP_FROM", value_name = "FROM", default_value = "namespace")]
    app_from: AppFrom,
    /// Also look whether the accounts `collector`, `streamer` and `sinks` of this namespace have the rights they need, as deploy/ gives them; needs the right to ask (`create`
    /// `subjectaccessreviews`) [default: the rights of who checks alone]
    #[arg(long, env = "TRIBUTARY_ACCOUNTS", value_name = "NAMESPACE")]
    accounts: Option<String>,
    /// How long to wait for a container to print the line whose way is measured
    #[arg(
        long,
        value_name = "TIME",
        default_value = "20s",
        value_parser = humantime::parse_duration
    )]
    wait: Duration,
}

/// Looks at everything, tells it, and ends; what one part is missing keeps no other from being looked at.
pub(crate) async fn run(args: CheckArgs) -> anyhow::Result<()> {
    let (mut report, mut clocks) = (Report::default(), Clocks::default());
    let bus = bus::look(
        &mut report,
        &mut clocks,
        args.bus.clone().map(BusArgs::from),
        args.keep.retention,
    )
    .await;
    let cluster = cluster::look(&mut report, &mut clocks).await;
    if let Some(cluster) = &cluster {
        rights::look(
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
    registry(&mut report, &args.registry).await;
    let server = server::look(&mut report, &mut clocks, &args.server).await;
    match &cluster {
        Some(cluster) if !containers.is_empty() => {
            let way = canary::Way {
                cluster,
                bus: bus.as_deref(),
                server: server.as_ref(),
                wait: args.wait,
            };
            way.look(&mut report, &mut clocks, containers).await;
        }
        _ => report.unchecked("canary", "no container to read a line of"),
    }
    clocks.tell(&mut report);
    if let Some(bus) = bus {
        bus.close().await;
    }
    report.conclude()
}

/// Whether drains and keys can be had.
async fn registry(report: &mut Report, args: &RegistryArgs) {
    match args.open(None).await {
        Ok(None) => report.unchecked("registry", "none was named (--registry)"),
        Ok(Some(registry)) => {
            let (drains, keys) = (registry.drains().borrow().len(), registry.keys().borrow().list().len());
            report.ok(
                "registry",
                format!("{}, {}", count(drains, "drain"), count(keys, "key")),
            );
        }
        Err(error) => report.fault("registry", format!("{error:#}")),
    }
}
