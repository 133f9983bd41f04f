//! Collector, streamers and sinks as processes of their own on the model of Pub/Sub, composed as
//! `tributary collector`, `tributary streamer` and `tributary sinks` compose them.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use bus::{Bus, BusError, PubSub, PubSubSettings, pubsub_service::Service as BusService};
use prometheus_client::registry::Registry as Metrics;
use registry::{FileRegistry, KubernetesRegistry, Registry};
use sinks::Replica;
use streamer::Access;
use tokio_util::sync::CancellationToken;

use super::{
    DATA_DIR, Exported, Start, service,
    settings::{addresses, collector_config, drains, start},
};
use crate::{
    plan::{Plan, SharedRegistry, Source},
    world::node,
};

/// The file of the registry on the disk that replicas share.
const REGISTRY_FILE: &str = "/shared/registry.json";

/// The namespace of the registry's Secrets.
const REGISTRY_NAMESPACE: &str = "tributary";

/// What all processes of a cluster share.
#[derive(Clone)]
pub struct Cluster {
    bus: Arc<dyn BusService>,
    kubernetes: node::Service,
    source: Source,
    registry: SharedRegistry,
    /// How many replicas of sinks there are.
    sinks: Arc<AtomicU32>,
    exported: Exported,
}

impl Cluster {
    /// Creates the processes' common parts.
    pub fn new(
        plan: &Plan,
        bus: Arc<dyn BusService>,
        kubernetes: node::Service,
        sinks: Arc<AtomicU32>,
        exported: Exported,
    ) -> Self {
        Self {
            bus,
            kubernetes,
            source: plan.source,
            registry: plan.registry,
            sinks,
            exported,
        }
    }

    /// Returns what starts the collector.
    pub fn collector(&self) -> Start {
        let cluster = self.clone();
        Arc::new(move |stop| Box::pin(cluster.clone().run_collector(stop)))
    }

    /// Returns what starts a replica of the streamer.
    pub fn streamer(&self, index: usize, listen: SocketAddr) -> Start {
        let cluster = self.clone();
        Arc::new(move |stop| Box::pin(cluster.clone().run_streamer(index, listen, stop)))
    }

    /// Returns what starts a replica of sinks.
    pub fn sinks(&self, index: u32) -> Start {
        let cluster = self.clone();
        Arc::new(move |stop| Box::pin(cluster.clone().run_sinks(index, stop)))
    }

    fn open_bus(&self, replica: &str) -> Result<Arc<dyn Bus>, BusError> {
        let settings = PubSubSettings::new("simulated-project", replica);
        Ok(Arc::new(PubSub::with_service(settings, Arc::clone(&self.bus))?))
    }

    fn client(&self) -> kube::Client {
        kube::Client::new(self.kubernetes.clone(), "default")
    }

    async fn open_registry(&self) -> anyhow::Result<Arc<dyn Registry>> {
        Ok(match self.registry {
            SharedRegistry::File => Arc::new(FileRegistry::open(REGISTRY_FILE).await?),
            SharedRegistry::Kubernetes => {
                let namespace = Some(REGISTRY_NAMESPACE.to_owned());
                Arc::new(KubernetesRegistry::open(self.client(), namespace).await?)
            }
        })
    }

    async fn run_collector(self, stop: CancellationToken) -> anyhow::Result<()> {
        let bus = self.open_bus("collector")?;
        let mut metrics = Metrics::default();
        let config = collector_config(self.source, Path::new(DATA_DIR), &mut metrics);
        self.exported.add("collector", metrics);
        let (client, collector_bus) = (self.client(), Arc::clone(&bus));
        let collector = start("collector", |stop| async move {
            Ok(collector::run(config, client, collector_bus, stop).await?)
        });
        let ran = service::run(vec![collector], stop).await;
        bus.close().await;
        ran
    }

    async fn run_streamer(self, index: usize, listen: SocketAddr, stop: CancellationToken) -> anyhow::Result<()> {
        let listener = system::net::bind(listen).await?;
        let registry = self.open_registry().await?;
        let drains = drains(registry)?;
        let bus = self.open_bus(&format!("streamer-{index}"))?;
        let (streamer_bus, metrics) = (Arc::clone(&bus), streamer::Metrics::register(&mut Metrics::default()));
        let streamer = start("streamer", |stop| async move {
            let (config, access) = (streamer::Config::default(), Access::unauthenticated());
            Ok(streamer::run(config, access, drains, listener, streamer_bus, metrics, stop).await?)
        });
        let housekeeping_bus = Arc::clone(&bus);
        let housekeeping = start("housekeeping", |stop| async move {
            stop.run_until_cancelled(housekeeping_bus.run_housekeeping()).await;
            Ok(())
        });
        let ran = service::run(vec![streamer, housekeeping], stop).await;
        bus.close().await;
        ran
    }

    async fn run_sinks(self, index: u32, stop: CancellationToken) -> anyhow::Result<()> {
        let count = self.sinks.load(Ordering::Relaxed);
        if index >= count {
            // Not a replica for now.
            stop.cancelled().await;
            return Ok(());
        }
        let registry = self.open_registry().await?;
        let holder = format!("sinks-{index}");
        let bus = self.open_bus(&holder)?;
        let config = sinks::Config {
            addresses: addresses()?,
            replica: Replica { index, count },
            holder,
            ..sinks::Config::default()
        };
        let (sinks_bus, metrics) = (Arc::clone(&bus), sinks::Metrics::register(&mut Metrics::default()));
        let sinks = start("sinks", |stop| async move {
            Ok(sinks::run(config, registry, sinks_bus, metrics, stop).await?)
        });
        let ran = service::run(vec![sinks], stop).await;
        bus.close().await;
        ran
    }
}
