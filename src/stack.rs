//! The services of one machine, in one process: bus, collector, streamer, sinks.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use anyhow::Context;
use bus::{Bus, Embedded, Limits};
use futures::FutureExt;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    admin::{self, Ready},
    console as say,
    flags::StackArgs,
    flags::bus::owner_name,
    service::{self, Service},
};

/// Where probes ask, unless told otherwise.
const ADMIN_PORT: u16 = 9601;

/// How often, and how long, a demo looks whether its apps have been seen.
const APPS_POLL: Duration = Duration::from_millis(5);
const APPS_WAIT: Duration = Duration::from_secs(2);

/// What runs. Stops in the reverse of the order in which it started, so that readers see the last lines.
pub(crate) struct Stack {
    url: String,
    bus: Arc<dyn Bus>,
    collector: Service,
    streamer: Service,
    sinks: Option<Service>,
    admin: Service,
}

impl Stack {
    /// Opens everything that can fail for want of a right or a place, then starts the services.
    ///
    /// # Errors
    /// One line that says what to do.
    pub(crate) async fn start(args: &StackArgs, data_dir: &Path, client: kube::Client) -> anyhow::Result<Self> {
        let bus = open_bus(args, data_dir).await?;
        let keeper = args.read.drains.registry.open(Some(data_dir)).await?;
        let drained = keeper.clone();
        let access = args.read.access(keeper, Some(client.clone())).await?;
        let listener = listen(args.read.listen).await?;
        let addr = listener.local_addr().context("the listener has no address")?;
        let (door, url) = (args.read.door(listener)?, args.read.url(addr));
        say::aside(&format!("listening on {url}"));
        let admin_listener = admin::bind(args.admin.admin_listen, ADMIN_PORT).await?;
        let mut registry = Registry::default();
        let streamer_stop = CancellationToken::new();
        let ready = ready(Arc::clone(&bus), client.clone(), streamer_stop.clone());
        let mut config = args.collect.config(data_dir, args.keep.retention);
        config.metrics = collector::Metrics::register(&mut registry);
        let (collector_bus, collector_stop) = (Arc::clone(&bus), CancellationToken::new());
        let stop = collector_stop.clone();
        let collector = Service::start("collector", collector_stop, async move {
            Ok(collector::run(config, client, collector_bus, stop).await?)
        });
        let config = args.read.config(args.keep.retention);
        let metrics = streamer::Metrics::register(&mut registry);
        let (streamer_bus, stop) = (Arc::clone(&bus), streamer_stop.clone());
        let streamer = Service::start("streamer", streamer_stop, async move {
            Ok(streamer::run(config, access, door, streamer_bus, metrics, stop).await?)
        });
        let sinks = drained.map(|drained| {
            let holder = owner_name(data_dir);
            let config = args.read.drains.send.config(args.keep.retention, holder);
            let metrics = sinks::Metrics::register(&mut registry);
            let (bus, stop) = (Arc::clone(&bus), CancellationToken::new());
            Service::start("sinks", stop.clone(), async move {
                Ok(sinks::run(config, drained, bus, metrics, stop).await?)
            })
        });
        let admin_stop = CancellationToken::new();
        let admin = Service::start(
            "admin listener",
            admin_stop.clone(),
            admin::run(admin_listener, registry, ready, admin_stop),
        );
        Ok(Self {
            url,
            bus,
            collector,
            streamer,
            sinks,
            admin,
        })
    }

    /// Where readers connect: scheme, address and port.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Waits until these apps can be read, but not for long: what does not come, the reader is told.
    pub(crate) async fn wait_for_apps(&self, apps: &[String]) {
        let there = async {
            while !self
                .bus
                .apps()
                .await
                .is_ok_and(|known| apps.iter().all(|app| known.iter().any(|k| k.as_str() == app)))
            {
                tokio::time::sleep(APPS_POLL).await;
            }
        };
        let _ = tokio::time::timeout(APPS_WAIT, there).await;
    }

    /// Runs until told to stop, or until a service fails; then stops the rest.
    ///
    /// # Errors
    /// The failure.
    pub(crate) async fn run(self, shutdown: CancellationToken) -> anyhow::Result<()> {
        let services = [self.collector, self.streamer]
            .into_iter()
            .chain(self.sinks)
            .chain([self.admin]);
        service::run(services.collect(), shutdown).await
    }
}

/// Ready is what stands on a bus and an API that answer, and is not about to stop.
pub(crate) fn ready(bus: Arc<dyn Bus>, client: kube::Client, stopping: CancellationToken) -> Ready {
    Arc::new(move || {
        let (bus, client, stopping) = (Arc::clone(&bus), client.clone(), stopping.clone());
        async move {
            if stopping.is_cancelled() {
                return Err("it is stopping".to_owned());
            }
            bus.check().await.map_err(|error| error.to_string())?;
            let api = client.apiserver_version().await;
            api.map(drop)
                .map_err(|error| format!("the Kubernetes API does not answer: {error}"))
        }
        .boxed()
    })
}

pub(crate) async fn listen(listen: SocketAddr) -> anyhow::Result<TcpListener> {
    streamer::bind(listen).await.with_context(|| {
        format!("cannot listen on {listen} (another program may have the port: choose one with --listen, port 0 takes a free one)")
    })
}

async fn open_bus(args: &StackArgs, data_dir: &Path) -> anyhow::Result<Arc<dyn Bus>> {
    let dir = data_dir.join("bus");
    std::fs::create_dir_all(&dir).with_context(|| {
        format!(
            "cannot make the data directory {} (choose another with --data-dir)",
            data_dir.display()
        )
    })?;
    let limits = Limits {
        retention: args.keep.retention,
        retention_bytes: args.retention_bytes.as_u64(),
    };
    let opened = tokio::task::spawn_blocking(move || Embedded::open(&dir, limits)).await;
    let bus = opened.context("opening the bus failed")?.with_context(|| {
        format!(
            "cannot use the data directory {} (choose another with --data-dir)",
            data_dir.display()
        )
    })?;
    Ok(Arc::new(bus))
}
