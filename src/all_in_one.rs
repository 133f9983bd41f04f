//! All services in one process: bus, collector, streamer and sinks.

#[cfg(feature = "demo")]
use std::time::Duration;
use std::{os::unix::fs::DirBuilderExt, path::Path, sync::Arc};

use anyhow::Context;
use bus::{Bus, BusAddress, BusSettings};
use prometheus_client::registry::Registry as MetricsRegistry;
#[cfg(feature = "demo")]
use registry::Registry;
use tokio_util::sync::CancellationToken;

use crate::{
    admin_listener, console, descriptors,
    flags::{all_in_one::StackArgs, bus::owner_name},
    readiness,
    service::{self, Service},
};

/// Default port of the admin listener.
const ADMIN_PORT: u16 = 9601;

/// How often, and how long, [`Stack::wait_for_apps`] polls the bus.
#[cfg(feature = "demo")]
const APPS_POLL: Duration = Duration::from_millis(5);
#[cfg(feature = "demo")]
const APPS_TIMEOUT: Duration = Duration::from_secs(2);

/// The running services. They stop in the order in which lines pass them, so that readers receive the
/// last lines.
pub(crate) struct Stack {
    url: String,
    #[cfg(feature = "demo")]
    admin_url: String,
    #[cfg(feature = "demo")]
    bus: Arc<dyn Bus>,
    #[cfg(feature = "demo")]
    registry: Option<Arc<dyn Registry>>,
    collector: Service,
    streamer: Service,
    sinks: Option<Service>,
    admin: Service,
}

impl Stack {
    /// Opens everything that can fail, then starts the services.
    ///
    /// # Errors
    /// One line with the value, the cause and what to do.
    pub(crate) async fn start(args: &StackArgs, data_dir: &Path, kubernetes: kube::Client) -> anyhow::Result<Self> {
        let bus = open_bus(args, data_dir).await?;
        let registry = args.registry.open(Some(data_dir)).await?;
        let access = args.read.access(registry.clone(), Some(kubernetes.clone())).await?;
        let drains = args.read.drain_service(registry.clone())?;
        let listener = args.read.bind().await?;
        let addr = listener
            .local_addr()
            .context("cannot read the address of the listener")?;
        let (listener, url) = (args.read.listener(listener)?, args.read.url(addr));
        console::eprintln_line(&format!("listening on {url}"));
        let admin_listener = admin_listener::bind(args.admin.admin_listen, ADMIN_PORT).await?;
        #[cfg(feature = "demo")]
        let admin_addr = admin_listener
            .local_addr()
            .context("cannot read the address of the admin listener")?;
        let mut metrics = MetricsRegistry::default();
        let streamer_stop = CancellationToken::new();
        let ready = readiness::ready(&bus, Some(kubernetes.clone()), streamer_stop.clone());
        let mut config = args.collect.config(data_dir, args.retention.retention);
        config.metrics = collector::Metrics::register(&mut metrics);
        config.max_connections = descriptors::share(1, 4);
        let ready = readiness::with_collector(ready, config.progress.clone(), false);
        let (collector_bus, collector_stop) = (Arc::clone(&bus), CancellationToken::new());
        let stop = collector_stop.clone();
        let collector = Service::start("collector", collector_stop, async move {
            Ok(collector::run(config, kubernetes, collector_bus, stop).await?)
        });
        let mut config = args.read.config(args.retention.retention);
        config.max_connections = descriptors::share(1, 2);
        let streamer_metrics = streamer::Metrics::register(&mut metrics);
        let (streamer_bus, stop) = (Arc::clone(&bus), streamer_stop.clone());
        let streamer = Service::start("streamer", streamer_stop, async move {
            Ok(streamer::run(config, access, drains, listener, streamer_bus, streamer_metrics, stop).await?)
        });
        let sinks = registry.clone().map(|registry| {
            let holder = owner_name(data_dir);
            let config = args.read.drains.send.config(args.retention.retention, holder);
            let sinks_metrics = sinks::Metrics::register(&mut metrics);
            let (bus, stop) = (Arc::clone(&bus), CancellationToken::new());
            Service::start("sinks", stop.clone(), async move {
                Ok(sinks::run(config, registry, bus, sinks_metrics, stop).await?)
            })
        });
        let admin_stop = CancellationToken::new();
        let admin = Service::start(
            "admin listener",
            admin_stop.clone(),
            admin_listener::run(admin_listener, metrics, ready, admin_stop),
        );
        Ok(Self {
            url,
            #[cfg(feature = "demo")]
            admin_url: format!("http://{admin_addr}"),
            #[cfg(feature = "demo")]
            bus,
            #[cfg(feature = "demo")]
            registry,
            collector,
            streamer,
            sinks,
            admin,
        })
    }

    /// Returns the URL of the streamer: scheme, address and port.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    #[cfg(feature = "demo")]
    /// Returns the URL of the admin listener.
    pub(crate) fn admin_url(&self) -> &str {
        &self.admin_url
    }

    #[cfg(feature = "demo")]
    /// Returns the registry of drains and keys.
    pub(crate) fn registry(&self) -> Option<&Arc<dyn Registry>> {
        self.registry.as_ref()
    }

    #[cfg(feature = "demo")]
    /// Waits up to two seconds until the bus has these apps.
    pub(crate) async fn wait_for_apps(&self, apps: &[String]) {
        let all_present = async {
            while !self
                .bus
                .apps()
                .await
                .is_ok_and(|present| apps.iter().all(|app| present.iter().any(|name| name.as_str() == app)))
            {
                tokio::time::sleep(APPS_POLL).await;
            }
        };
        let _ = tokio::time::timeout(APPS_TIMEOUT, all_present).await;
    }

    /// Runs until `shutdown` or until a service fails, then stops all services.
    ///
    /// # Errors
    /// The first failure.
    pub(crate) async fn run(self, shutdown: CancellationToken) -> anyhow::Result<()> {
        let services = [self.collector, self.streamer]
            .into_iter()
            .chain(self.sinks)
            .chain([self.admin]);
        service::run(services.collect(), shutdown).await
    }
}

async fn open_bus(args: &StackArgs, data_dir: &Path) -> anyhow::Result<Arc<dyn Bus>> {
    let dir = data_dir.join("bus");
    let context = || {
        format!(
            "cannot use the data directory {}; choose another one with --data-dir",
            data_dir.display()
        )
    };
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700).create(&dir).with_context(context)?;
    let settings = BusSettings {
        retention: args.retention.retention,
        retention_bytes: args.retention_bytes.as_u64(),
        ..BusSettings::new(owner_name(data_dir))
    };
    let opened = BusAddress::Embedded(dir).open(&settings).await;
    opened.with_context(context)
}
