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
//! logs (`api`). [`Cluster`] is the handle that tests hold.
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

use std::net::SocketAddr;
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
mod simulation;
mod store;
mod time;
mod timeline;

pub use access::{Rule, User};
pub use cluster::Cluster;
pub use cluster::output::InstanceOutput;
pub use error::Error;
pub use scenario::{
    ContainerPlan, Fault, FaultKind, LinePlan, LogFiles, Output, PodPlan, Program, RestartPolicy, Role, Scenario,
    ScenarioError,
};

use listener::ApiListener;
use node::log_files;
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
    if let Some(dir) = &config.scenario.log_files.dir {
        std::fs::create_dir_all(dir).map_err(|source| Error::LogDir {
            dir: dir.clone(),
            source,
        })?;
    }
    let sim = Arc::new(Simulation::new(&config.scenario));
    let down = sim.state.api_down.subscribe();
    let addr = config.listen;
    let port = ApiListener::bind(addr, down)
        .await
        .map_err(|source| Error::Listen { addr, source })?;
    let addr = port.addr();
    sim.pods.create_namespace("default");
    for pod in &config.scenario.pods {
        sim.pods.create_namespace(&pod.namespace);
    }
    let stop = sim.stop.clone();
    let serving =
        axum::serve(port, api::router(Arc::clone(&sim))).with_graceful_shutdown(stop.clone().cancelled_owned());
    sim.tasks.spawn(async move {
        if let Err(error) = serving.await {
            tracing::error!(%error, "API server failed");
        }
    });
    sim.tasks.spawn(
        stop.clone()
            .run_until_cancelled_owned(timeline::play(Arc::clone(&sim), config.scenario)),
    );
    sim.tasks.spawn(
        stop.clone()
            .run_until_cancelled_owned(log_files::run_checks(Arc::clone(&sim))),
    );
    tracing::info!(%addr, "simulated cluster started");
    Ok(Cluster { sim, addr })
}
