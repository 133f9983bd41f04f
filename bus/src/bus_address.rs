//! Addresses of buses: which engine, and where.

use std::{fmt, path::PathBuf, str::FromStr, sync::Arc, time::Duration};

#[cfg(feature = "pubsub")]
use crate::pubsub::{PubSub, PubSubSettings};
use crate::{
    bus::Bus,
    embedded::{Embedded, EmbeddedSettings},
    error::BusError,
};

/// Where Google Pub/Sub is.
#[cfg(feature = "pubsub")]
const SERVICE_ADDRESS: &str = "pubsub.googleapis.com:443";

/// Address of a bus, as given by `--bus`.
///
/// *Shape*: `pubsub:PROJECT[,PROJECT…]` or `embedded:DIR`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BusAddress {
    /// Google Pub/Sub in these projects, or its emulator if `PUBSUB_EMULATOR_HOST` is set.
    #[cfg(feature = "pubsub")]
    PubSub(Vec<String>),
    /// An embedded bus in this directory, for a single process.
    Embedded(PathBuf),
}

/// Settings that every engine understands; an engine ignores what does not apply to it.
#[derive(Clone, Debug)]
pub struct BusSettings {
    /// Name of this process: unique among the processes on the bus, and kept across restarts, so
    /// that a process finds the subscriptions that it left behind.
    pub replica: String,
    /// How long a batch is stored.
    pub retention: Duration,
    /// Maximum bytes of all stored batches (embedded bus).
    pub retention_bytes: u64,
    /// Whether published batches are compressed if that saves bytes. Readers accept both forms.
    pub compression: bool,
}

/// The text is not an address of a bus.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}; use {}", if *is_shared { SHARED_FORMS } else { FORMS })]
pub struct InvalidBusAddress {
    reason: &'static str,
    /// Whether only a bus that several processes can share is accepted.
    is_shared: bool,
}

#[cfg(feature = "pubsub")]
const SHARED_FORMS: &str = "pubsub:PROJECT[,PROJECT…]";
#[cfg(not(feature = "pubsub"))]
const SHARED_FORMS: &str = "a binary that was built with the feature `pubsub`";

#[cfg(feature = "pubsub")]
const FORMS: &str = "pubsub:PROJECT[,PROJECT…] or embedded:DIR";
#[cfg(not(feature = "pubsub"))]
const FORMS: &str = "embedded:DIR";

impl BusSettings {
    /// Creates settings with the defaults: 24 hours, 1 GB, compression.
    pub fn new(replica: impl Into<String>) -> Self {
        let EmbeddedSettings {
            retention,
            retention_bytes,
        } = EmbeddedSettings::default();
        Self {
            replica: replica.into(),
            retention,
            retention_bytes,
            compression: true,
        }
    }
}

impl BusAddress {
    /// Opens the bus. A remote bus is not contacted yet, so that services start in any order.
    ///
    /// Pub/Sub requires that the process has installed its TLS provider.
    ///
    /// # Errors
    /// [`BusError::Settings`] for invalid settings or credentials; [`BusError::InUse`] and
    /// [`BusError::Open`] for the directory of an embedded bus.
    pub async fn open(&self, settings: &BusSettings) -> Result<Arc<dyn Bus>, BusError> {
        match self {
            #[cfg(feature = "pubsub")]
            Self::PubSub(projects) => {
                let settings = PubSubSettings {
                    retention: settings.retention,
                    compression: settings.compression,
                    ..PubSubSettings::for_projects(projects.clone(), settings.replica.clone())
                };
                Ok(Arc::new(PubSub::open(settings).await?))
            }
            Self::Embedded(dir) => {
                let dir = dir.clone();
                let settings = EmbeddedSettings {
                    retention: settings.retention,
                    retention_bytes: settings.retention_bytes,
                };
                let opened = system::task::blocking(move || Embedded::open(&dir, settings)).await;
                Ok(Arc::new(opened.map_err(|_| BusError::Closed)??))
            }
        }
    }

    /// Returns the `HOST:PORT` that the bus connects to, or `None` if it needs no connection.
    pub fn service_address(&self) -> Option<String> {
        match self {
            #[cfg(feature = "pubsub")]
            Self::PubSub(projects) => {
                let settings = PubSubSettings::for_projects(projects.clone(), "");
                Some(settings.emulator.unwrap_or_else(|| SERVICE_ADDRESS.to_owned()))
            }
            Self::Embedded(_) => None,
        }
    }

    /// Splits the address into the parts that can fail independently, such as the projects of
    /// Pub/Sub, each as a separate address. A health check opens and probes each of them.
    pub fn parts(&self) -> Vec<Self> {
        match self {
            #[cfg(feature = "pubsub")]
            Self::PubSub(projects) => projects
                .iter()
                .map(|project| Self::PubSub(vec![project.clone()]))
                .collect(),
            Self::Embedded(_) => vec![self.clone()],
        }
    }

    /// Parses the address of a bus that several processes can use at the same time.
    ///
    /// # Errors
    /// [`InvalidBusAddress`], also for an embedded bus.
    pub fn parse_shared(text: &str) -> Result<Self, InvalidBusAddress> {
        let invalid = |reason| InvalidBusAddress {
            reason,
            is_shared: true,
        };
        let address: Self = text
            .parse()
            .map_err(|InvalidBusAddress { reason, .. }| invalid(reason))?;
        if matches!(address, Self::Embedded(_)) {
            return Err(invalid(
                "an embedded bus belongs to one process: `tributary up --data-dir DIR` runs all services in one process",
            ));
        }
        Ok(address)
    }
}

impl FromStr for BusAddress {
    type Err = InvalidBusAddress;

    fn from_str(text: &str) -> Result<Self, InvalidBusAddress> {
        let invalid = |reason| InvalidBusAddress {
            reason,
            is_shared: false,
        };
        match text.split_once(':') {
            #[cfg(feature = "pubsub")]
            Some(("pubsub", projects)) if projects.split(',').all(|project| !project.is_empty()) => {
                Ok(Self::PubSub(projects.split(',').map(str::to_owned).collect()))
            }
            #[cfg(feature = "pubsub")]
            Some(("pubsub", _)) => Err(invalid("a project id is empty")),
            #[cfg(not(feature = "pubsub"))]
            Some(("pubsub", _)) => Err(invalid("this binary was built without Pub/Sub")),
            Some(("embedded", "")) => Err(invalid("the directory is missing")),
            Some(("embedded", dir)) => Ok(Self::Embedded(dir.into())),
            _ => Err(invalid("unknown kind of bus")),
        }
    }
}

impl fmt::Display for BusAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            #[cfg(feature = "pubsub")]
            Self::PubSub(projects) => write!(f, "pubsub:{}", projects.join(",")),
            Self::Embedded(dir) => write!(f, "embedded:{}", dir.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_round_trips_and_splits_into_its_projects() {
        for text in ["pubsub:one", "pubsub:one,two", "embedded:/var/lib/bus"] {
            let address: BusAddress = text.parse().unwrap();
            assert_eq!(address.to_string(), text);
            assert_eq!(BusAddress::parse_shared(text).is_ok(), text.starts_with("pubsub:"));
        }
        let both: BusAddress = "pubsub:one,two".parse().unwrap();
        let parts: Vec<String> = both.parts().iter().map(BusAddress::to_string).collect();
        assert_eq!(parts, ["pubsub:one", "pubsub:two"]);
    }

    #[test]
    fn an_invalid_address_is_rejected_with_the_valid_forms() {
        for text in ["", "nats", "kafka:x", "pubsub:", "pubsub:one,,two", "embedded:"] {
            let error = text.parse::<BusAddress>().unwrap_err().to_string();
            assert!(error.contains("use pubsub:PROJECT"), "{error}");
            let error = BusAddress::parse_shared(text).unwrap_err().to_string();
            assert!(error.ends_with("use pubsub:PROJECT[,PROJECT…]"), "{error}");
        }
    }
}
