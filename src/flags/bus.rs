//! The bus that a service of a cluster stands on.

use std::{net::SocketAddr, path::Path, str::FromStr, sync::Arc, time::Duration};

use anyhow::Context;
use bus::{Bus, PubSub, PubSubSettings};
use clap::Args;

/// Which bus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum BusName {
    /// Google Pub/Sub, in these projects.
    PubSub(Vec<String>),
}

#[derive(Args)]
pub(crate) struct BusArgs {
    /// The bus: `pubsub:PROJECT`, Google Pub/Sub (or, with PUBSUB_EMULATOR_HOST, its emulator)
    ///
    /// For more than 10,000 apps `pubsub:PROJECT,PROJECT,…`, the same of every service: an app stays in the project that has its topic, new ones are spread, and a project that is full is passed over.
    #[arg(long, env = "TRIBUTARY_BUS", value_name = "BUS")]
    bus: BusName,
}

impl FromStr for BusName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("pubsub", projects)) if !projects.is_empty() => {
                Ok(Self::PubSub(projects.split(',').map(str::to_owned).collect()))
            }
            Some(("embedded", _)) => Err(
                "an embedded store belongs to one process: `tributary up --data-dir DIR` runs all of it in one, services of a cluster meet on pubsub:PROJECT"
                    .to_owned(),
            ),
            _ => Err("give pubsub:PROJECT or pubsub:PROJECT,PROJECT,…".to_owned()),
        }
    }
}

impl From<BusName> for BusArgs {
    fn from(bus: BusName) -> Self {
        Self { bus }
    }
}

impl BusArgs {
    /// Opens the bus; asks nothing of it yet, so that services start in any order.
    ///
    /// # Errors
    /// One line that says what to do.
    pub(crate) async fn open(&self, replica: &str, retention: Duration) -> anyhow::Result<Arc<dyn Bus>> {
        self.open_with(self.settings(replica, retention)).await
    }

    /// How it would be opened.
    pub(crate) fn settings(&self, replica: &str, retention: Duration) -> PubSubSettings {
        let BusName::PubSub(projects) = &self.bus;
        PubSubSettings {
            retention,
            ..PubSubSettings::over(projects.clone(), replica)
        }
    }

    /// Opens it with other settings.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub(crate) async fn open_with(&self, settings: PubSubSettings) -> anyhow::Result<Arc<dyn Bus>> {
        let projects = settings.projects.join(",");
        let opened = PubSub::open(settings).await;
        let bus = opened.with_context(|| format!("cannot use --bus pubsub:{projects}"))?;
        Ok(Arc::new(bus))
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
