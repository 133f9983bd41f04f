//! `tributary streamer`: serves readers from a cluster's bus.

use std::sync::Arc;

use anyhow::Context;
use clap::Args;
use futures::FutureExt;
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

use crate::{
    admin::{self, Ready},
    console as say,
    flags::bus::{BusArgs, replica_name},
    flags::{AdminArgs, KeepArgs, ReadArgs, refuse},
    service::{self, Service},
    stack,
};

/// Where probes ask, unless told otherwise.
const ADMIN_PORT: u16 = 9602;

#[derive(Args)]
pub(crate) struct StreamerArgs {
    #[command(flatten)]
    bus: BusArgs,
    #[command(flatten)]
    read: ReadArgs,
    #[command(flatten)]
    keep: KeepArgs,
    #[command(flatten)]
    admin: AdminArgs,
    /// This replica's name on the bus: no two that run at once may share it, and it should stay when the replica is started again [default: the machine's name and
    /// the port of --listen]
    #[arg(long, env = "TRIBUTARY_REPLICA_NAME", value_name = "NAME")]
    replica_name: Option<String>,
}

/// Runs until told to stop.
pub(crate) async fn run(args: StreamerArgs, shutdown: CancellationToken) -> anyhow::Result<()> {
    let mut wrong = args.read.mistakes();
    wrong.extend(args.keep.mistakes());
    refuse(&wrong)?;
    let listener = stack::listen(args.read.listen).await?;
    let keeper = args.read.drains.registry.open(None).await?;
    let access = args.read.access(keeper, None).await?;
    let addr = listener.local_addr().context("the listener has no address")?;
    let replica = args.replica_name.clone().unwrap_or_else(|| replica_name(addr));
    let bus = args.bus.open(&replica, args.keep.retention).await?;
    let door = args.read.door(listener)?;
    say::aside(&format!("listening on {}", args.read.url(addr)));
    let admin_listener = admin::bind(args.admin.admin_listen, ADMIN_PORT).await?;
    let mut registry = Registry::default();
    let (streamer_stop, admin_stop) = (CancellationToken::new(), CancellationToken::new());
    let ready = ready(&bus, streamer_stop.clone());
    let config = args.read.config(args.keep.retention);
    let metrics = streamer::Metrics::register(&mut registry);
    let (streamer_bus, stop) = (Arc::clone(&bus), streamer_stop.clone());
    let streamer = Service::start("streamer", streamer_stop, async move {
        Ok(streamer::run(config, access, door, streamer_bus, metrics, stop).await?)
    });
    let (house, house_stop) = (Arc::clone(&bus), CancellationToken::new());
    let leave = house_stop.clone();
    let housekeeping = Service::start("housekeeping", house_stop, async move {
        leave.run_until_cancelled(house.run_housekeeping()).await;
        Ok(())
    });
    let admin = Service::start(
        "admin listener",
        admin_stop.clone(),
        admin::run(admin_listener, registry, ready, admin_stop),
    );
    let ran = service::run(vec![streamer, housekeeping, admin], shutdown).await;
    bus.close().await;
    ran
}

/// Ready is what stands on a bus that answers, and is not about to stop.
pub(crate) fn ready(bus: &Arc<dyn ::bus::Bus>, stopping: CancellationToken) -> Ready {
    let bus = Arc::clone(bus);
    Arc::new(move || {
        let (bus, stopping) = (Arc::clone(&bus), stopping.clone());
        async move {
            if stopping.is_cancelled() {
                return Err("it is stopping".to_owned());
            }
            bus.check().await.map_err(|error| error.to_string())
        }
        .boxed()
    })
}
