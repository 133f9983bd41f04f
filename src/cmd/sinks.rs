//! `tributary sinks`: forwards lines from a cluster's bus to drains.

use std::{path::PathBuf, str::FromStr, sync::Arc, time::Duration};

use ::registry::{Addresses, Prober};
use anyhow::{Context, bail};
use clap::Args;
use ipnet::IpNet;
use prometheus_client::registry::Registry;
use sinks::{Config, Probe, Replica};
use tokio_util::sync::CancellationToken;

use crate::{
    admin,
    cmd::streamer,
    flags::bus::{BusArgs, replica_name},
    flags::registry::RegistryArgs,
    flags::{AdminArgs, KeepArgs, refuse},
    service::{self, Service},
};

/// Where probes ask, unless told otherwise.
const ADMIN_PORT: u16 = 9603;

/// How drains are sent to.
#[derive(Args)]
pub(crate) struct SendArgs {
    /// Lets drains lead to these addresses too, a network such as 10.1.0.0/16; may be given again [default: public addresses alone]
    #[arg(long, env = "TRIBUTARY_ALLOW_ADDRESS", value_name = "CIDR", value_delimiter = ',')]
    allow_address: Vec<IpNet>,
    /// Trusts these certificate authorities with drains over TLS, PEM, besides the machine's
    #[arg(long, env = "TRIBUTARY_DRAIN_CA", value_name = "FILE")]
    drain_ca: Option<PathBuf>,
    /// Shows this certificate, PEM, to receivers that ask for one
    #[arg(long, env = "TRIBUTARY_DRAIN_CERT", value_name = "FILE", requires = "drain_key")]
    drain_cert: Option<PathBuf>,
    /// The certificate's private key, PEM
    #[arg(long, env = "TRIBUTARY_DRAIN_KEY", value_name = "FILE", requires = "drain_cert")]
    drain_key: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct SinksArgs {
    #[command(flatten)]
    bus: BusArgs,
    #[command(flatten)]
    registry: RegistryArgs,
    #[command(flatten)]
    send: SendArgs,
    #[command(flatten)]
    keep: KeepArgs,
    #[command(flatten)]
    admin: AdminArgs,
    /// Which of how many replicas this is, from 0: of three, `0/3`, `1/3` and `2/3`. Drains are shared among them
    #[arg(long, env = "TRIBUTARY_REPLICA", value_name = "I/N", default_value = "0/1")]
    replica: ReplicaArg,
    /// This replica's name: no two that run at once may share it, and it should stay when the replica is started again, which then goes on at once [default: the machine's
    /// name and the port of the admin listener]
    #[arg(long, env = "TRIBUTARY_REPLICA_NAME", value_name = "NAME")]
    replica_name: Option<String>,
}

/// Which of how many.
#[derive(Clone, Copy)]
struct ReplicaArg(Replica);

impl FromStr for ReplicaArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let read = text.split_once('/').and_then(|(index, count)| {
            let (index, count) = (index.parse().ok()?, count.parse().ok()?);
            (index < count).then_some(Replica { index, count })
        });
        read.map(Self)
            .ok_or_else(|| "give I/N, I from 0 to N-1: of three replicas the first is 0/3".to_owned())
    }
}

impl SendArgs {
    /// Where drains may lead.
    pub(crate) fn addresses(&self) -> Addresses {
        Addresses::allowing(self.allow_address.clone())
    }

    /// The settings of sinks; `retention` is how long lines are kept, `holder` what takes leases.
    pub(crate) fn config(&self, retention: Duration, holder: String) -> Config {
        Config {
            addresses: self.addresses(),
            holder,
            retention,
            ca: self.drain_ca.clone(),
            identity: self.drain_cert.clone().zip(self.drain_key.clone()),
            ..Config::default()
        }
    }

    /// Who tries drains.
    ///
    /// # Errors
    /// One line that says what cannot be used.
    pub(crate) fn prober(&self) -> anyhow::Result<Arc<dyn Prober>> {
        let config = self.config(Duration::ZERO, String::new());
        Ok(Arc::new(Probe::new(&config).context(
            "drains cannot be sent to (--drain-ca, --drain-cert, --drain-key)",
        )?))
    }
}

/// Runs until told to stop.
pub(crate) async fn run(args: SinksArgs, shutdown: CancellationToken) -> anyhow::Result<()> {
    refuse(&args.keep.mistakes())?;
    let Some(keeper) = args.registry.open(None).await? else {
        bail!("say where the drains are, with --registry file:PATH or --registry kubernetes:NAMESPACE");
    };
    let admin_listener = admin::bind(args.admin.admin_listen, ADMIN_PORT).await?;
    let addr = admin_listener
        .local_addr()
        .context("the admin listener has no address")?;
    let holder = args.replica_name.clone().unwrap_or_else(|| replica_name(addr));
    let bus = args.bus.open(&holder, args.keep.retention).await?;
    let mut registry = Registry::default();
    let (sinks_stop, admin_stop) = (CancellationToken::new(), CancellationToken::new());
    let ready = streamer::ready(&bus, sinks_stop.clone());
    let config = Config {
        replica: args.replica.0,
        ..args.send.config(args.keep.retention, holder)
    };
    tracing::info!(drains = keeper.drains().borrow().len(), "drains are known");
    let metrics = sinks::Metrics::register(&mut registry);
    let (sinks_bus, stop) = (Arc::clone(&bus), sinks_stop.clone());
    let sinks = Service::start("sinks", sinks_stop, async move {
        Ok(sinks::run(config, keeper, sinks_bus, metrics, stop).await?)
    });
    let admin = Service::start(
        "admin listener",
        admin_stop.clone(),
        admin::run(admin_listener, registry, ready, admin_stop),
    );
    let ran = service::run(vec![sinks, admin], shutdown).await;
    bus.close().await;
    ran
}
