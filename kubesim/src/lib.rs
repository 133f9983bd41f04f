//! A simulated Kubernetes cluster: one node, the pods of a [`Scenario`], and the API that serves
//! them and their logs.
//!
//! It reproduces what a log collector can observe of a real API server and kubelet: the order of
//! watch events, which lines of which container instance a log request returns, how a follow ends,
//! and the text of errors. `kubectl` works against it. All state is in memory; logs rotate (at 10
//! MiB by default), so memory is bounded by the number of containers.
//!
//! Reading order is data order: a [`Scenario`] is parsed (`scenario`), its pods and faults are
//! scheduled (`timeline`, `faults`), the node runs the pods (`node`), their containers write logs
//! (`logs`), every change is stored with a resource version (`store`), and the API serves store and
//! logs (`api`). [`Cluster`] is the handle that tests hold. With a port the API is served by
//! `listener`, without one by `service`.
//!
//! ```no_run
//! # async fn example() -> Result<(), kubesim::Error> {
//! let config = kubesim::Config {
//!     listen: ([127, 0, 0, 1], 0).into(),
//!     scenario: kubesim::Scenario::demo(),
//! };
//! let cluster = kubesim::start(config).await?;
//! println!("{}", cluster.kubeconfig());
//! cluster.shutdown().await;
//! # Ok(())
//! # }
//! ```

#![cfg_attr(
    test,
    allow(
        clippy::disallowed_methods,
        clippy::disallowed_types,
        reason = "tests use the operating system directly"
    )
)]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

mod access;
mod api;
mod cluster;
mod error;
mod faults;
mod ids;
mod listener;
mod logs;
mod node;
mod scenario;
mod service;
mod simulation;
mod store;
mod time;
mod timeline;

pub use access::{Rule, User};
pub use cluster::Cluster;
pub use cluster::lines::{LogLine, WrittenLine, WrittenLines};
pub use cluster::output::InstanceOutput;
pub use error::Error;
pub use scenario::{
    ContainerPlan, Fault, FaultKind, LinePlan, LogFiles, Output, PodPlan, Program, RestartPolicy, Role, Scenario,
    ScenarioError,
};

pub use service::ApiService;

use listener::ApiListener;
use node::{log_files, status_reports};
use simulation::Simulation;

/// Settings of a simulated cluster.
#[derive(Debug, Clone)]
pub struct Config {
    /// Address of the API; port 0 picks a free port. Requests are not authenticated unless the
    /// scenario sets `authorize`, so keep it on a loopback address.
    pub listen: SocketAddr,
    /// The pods to run and the faults to inject.
    pub scenario: Scenario,
}

/// Binds the API port, starts the server and the scenario, and returns.
///
/// *Errors*: [`Error::Listen`] when the address cannot be bound, [`Error::LogDir`] when the log
/// directory cannot be created.
pub async fn start(config: Config) -> Result<Cluster, Error> {
    let sim = create(&config.scenario)?;
    let down = sim.state.api_down.subscribe();
    let addr = config.listen;
    let port = ApiListener::bind(addr, down)
        .await
        .map_err(|source| Error::Listen { addr, source })?;
    let addr = port.addr();
    let router = api::router(Arc::clone(&sim));
    let serving = axum::serve(port, router.clone()).with_graceful_shutdown(sim.stop.clone().cancelled_owned());
    sim.machine.spawn_tracked(&sim.tasks, async move {
        if let Err(error) = serving.await {
            tracing::error!(%error, "API server failed");
        }
    });
    run(&sim, config.scenario);
    tracing::info!(%addr, "simulated cluster started");
    Ok(Cluster { sim, addr, router })
}

/// Starts the scenario without a port: the API is [`Cluster::service`]. Call it within a tokio
/// runtime. All tasks, files and random numbers of the cluster belong to the machine of the caller
/// if that is simulated.
///
/// *Errors*: [`Error::LogDir`] when the log directory cannot be created.
pub fn start_in_process(scenario: Scenario) -> Result<Cluster, Error> {
    let sim = create(&scenario)?;
    let router = api::router(Arc::clone(&sim));
    run(&sim, scenario);
    Ok(Cluster {
        sim,
        addr: NO_PORT,
        router,
    })
}

/// Creates the simulation and its namespaces.
fn create(scenario: &Scenario) -> Result<Arc<Simulation>, Error> {
    if let Some(dir) = &scenario.log_files.dir {
        system::files::create_dir_all(dir).map_err(|source| Error::LogDir {
            dir: dir.clone(),
            source,
        })?;
    }
    let sim = Arc::new(Simulation::new(scenario));
    sim.pods.create_namespace("default");
    for pod in &scenario.pods {
        sim.pods.create_namespace(&pod.namespace);
    }
    Ok(sim)
}

/// Starts the scenario.
fn run(sim: &Arc<Simulation>, scenario: Scenario) {
    sim.spawn(timeline::play(Arc::clone(sim), scenario));
    sim.spawn(log_files::run_checks(Arc::clone(sim)));
    sim.spawn(status_reports::run(Arc::clone(sim)));
}

/// The address of a cluster without a port.
const NO_PORT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
