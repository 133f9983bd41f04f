//! The bus that the services of a cluster share.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use anyhow::Context;
use bus::{Bus, BusAddress, BusSettings};
use clap::Args;

#[derive(Args)]
pub(crate) struct BusArgs {
    /// Bus of the services: `pubsub:PROJECT` for Google Pub/Sub, or its emulator with PUBSUB_EMULATOR_HOST
    ///
    /// Use `pubsub:PROJECT,PROJECT,…` for more than 10,000 apps, with the same projects for every service. An app stays in the project that has its topic; new apps are distributed over the projects that have room.
    #[arg(long, env = "TRIBUTARY_BUS", value_name = "BUS", value_parser = shared_address)]
    bus: BusAddress,
}

/// Parses the address of a bus that several processes can share.
pub(crate) fn shared_address(text: &str) -> Result<BusAddress, String> {
    let address: BusAddress = text
        .parse()
        .map_err(|error: bus::InvalidBusAddress| error.to_string())?;
    if address.is_shared() {
        Ok(address)
    } else {
        Err(format!(
            "{address} can be used by one process only; run `tributary up --data-dir DIR`, or use pubsub:PROJECT"
        ))
    }
}

impl From<BusAddress> for BusArgs {
    fn from(bus: BusAddress) -> Self {
        Self { bus }
    }
}

impl BusArgs {
    /// Opens the bus without contacting it, so that services start in any order.
    pub(crate) async fn open(&self, replica: &str, retention: Duration) -> anyhow::Result<Arc<dyn Bus>> {
        self.open_with(&self.settings(replica, retention)).await
    }

    /// Returns the settings to open the bus with.
    pub(crate) fn settings(&self, replica: &str, retention: Duration) -> BusSettings {
        BusSettings {
            retention,
            ..BusSettings::new(replica)
        }
    }

    /// Opens the bus with these settings.
    pub(crate) async fn open_with(&self, settings: &BusSettings) -> anyhow::Result<Arc<dyn Bus>> {
        let opened = self.bus.open(settings).await;
        opened.with_context(|| format!("cannot use --bus {}", self.bus))
    }

    /// Returns the address.
    pub(crate) fn address(&self) -> &BusAddress {
        &self.bus
    }
}

/// What tells this process from the others on the bus: the machine's name and where it listens, which both stay when it is started again.
pub(crate) fn replica_name(listen: SocketAddr) -> String {
    format!("{}-{}", host_name(), listen.port())
}

/// What tells who uses a data directory from the others: one process at a time has its bus.
pub(crate) fn owner_name(data_dir: &Path) -> String {
    format!("{}-{}", host_name(), data_dir.display()).replace('/', "_")
}

fn host_name() -> String {
    let host = std::env::var("HOSTNAME").ok().filter(|name| !name.is_empty());
    let host = host.or_else(|| std::fs::read_to_string("/etc/hostname").ok());
    host.as_deref().unwrap_or("tributary").trim().to_owned()
}
