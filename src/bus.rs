//! The bus that a service of a cluster stands on.

use std::{net::SocketAddr, path::Path, str::FromStr, sync::Arc, time::Duration};

use anyhow::Context;
use bus::{Bus, PubSub, PubSubSettings};
use clap::Args;

/// Which bus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum BusName {
    /// Google Pub/Sub, in this project.
    PubSub(String),
}

#[derive(Args)]
pub(crate) struct BusArgs {
    /// The bus: `pubsub:PROJECT`, Google Pub/Sub (or, with PUBSUB_EMULATOR_HOST, its emulator)
    #[arg(long, env = "TRIBUTARY_BUS", value_name = "BUS")]
    bus: BusName,
}

impl FromStr for BusName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("pubsub", project)) if !project.is_empty() => Ok(Self::PubSub(project.to_owned())),
            Some(("embedded", _)) => Err(
                "an embedded store belongs to one process: `tributary up --data-dir DIR` runs all of it in one, services of a cluster meet on pubsub:PROJECT"
                    .to_owned(),
            ),
            _ => Err("give pubsub:PROJECT".to_owned()),
        }
    }
}

impl BusArgs {
    /// Opens the bus; asks nothing of it yet, so that services start in any order.
    ///
    /// # Errors
    /// One line that says what to do.
    pub(crate) async fn open(&self, replica: &str, retention: Duration) -> anyhow::Result<Arc<PubSub>> {
        let BusName::PubSub(project) = &self.bus;
        let settings = PubSubSettings {
            retention,
            ..PubSubSettings::new(project, replica)
        };
        let opened = PubSub::open(settings).await;
        Ok(Arc::new(
            opened.with_context(|| format!("cannot use --bus pubsub:{project}"))?,
        ))
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

/// The bus as services take it.
pub(crate) fn shared(bus: &Arc<PubSub>) -> Arc<dyn Bus> {
    Arc::clone(bus) as Arc<dyn Bus>
}
