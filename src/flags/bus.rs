//! The bus that the services of a cluster share.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use anyhow::Context;
use bus::{Bus, BusAddress, BusSettings};
use clap::Args;

/// The bus of a service.
#[derive(Args)]
#[command(next_help_heading = "Storage")]
pub(crate) struct BusArgs {
    /// Use this bus: `pubsub:PROJECT[,PROJECT…]`, Google Pub/Sub or the emulator at
    /// $PUBSUB_EMULATOR_HOST
    ///
    /// Give every service the same projects. An app stays in the project that has its topic; new
    /// apps are spread over the projects, and full projects are skipped. See
    /// docs/operators/scaling.md.
    #[arg(long, env = "TRIBUTARY_BUS", value_name = "BUS", value_parser = BusAddress::parse_shared)]
    bus: BusAddress,
}

impl From<BusAddress> for BusArgs {
    fn from(bus: BusAddress) -> Self {
        Self { bus }
    }
}

impl BusArgs {
    /// Opens the bus without a request, so that services start in any order.
    ///
    /// # Errors
    /// One line with the value of `--bus` and the cause.
    pub(crate) async fn open(&self, replica: &str, retention: Duration) -> anyhow::Result<Arc<dyn Bus>> {
        self.open_with(&self.settings(replica, retention)).await
    }

    /// Returns the settings that [`open`](Self::open) uses.
    pub(crate) fn settings(&self, replica: &str, retention: Duration) -> BusSettings {
        BusSettings {
            retention,
            ..BusSettings::new(replica)
        }
    }

    /// Opens the bus with other settings.
    ///
    /// # Errors
    /// The same as [`open`](Self::open).
    pub(crate) async fn open_with(&self, settings: &BusSettings) -> anyhow::Result<Arc<dyn Bus>> {
        let opened = self.bus.open(settings).await;
        opened.with_context(|| format!("cannot use --bus {}", self.bus))
    }

    /// Returns the address.
    pub(crate) fn address(&self) -> &BusAddress {
        &self.bus
    }
}

/// Returns the default name of a replica on the bus: host name and port, which stay the same over a
/// restart.
pub(crate) fn replica_name(listen: SocketAddr) -> String {
    format!("{}-{}", host_name(), listen.port())
}

/// Returns the name of the process that owns a data directory: one process at a time uses it.
pub(crate) fn owner_name(data_dir: &Path) -> String {
    format!("{}-{}", host_name(), data_dir.display()).replace('/', "_")
}

fn host_name() -> String {
    let host = std::env::var("HOSTNAME").ok().filter(|name| !name.is_empty());
    let host = host.or_else(|| std::fs::read_to_string("/etc/hostname").ok());
    host.as_deref().unwrap_or("tributary").trim().to_owned()
}
