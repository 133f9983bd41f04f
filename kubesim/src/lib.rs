//! A simulated Kubernetes cluster: one node, the pods of a [`Scenario`], and the API that serves them and their logs.
//!
//! It behaves as a real API server and kubelet do where a log collector can see it: the order of watch events, which
//! lines of which container instance a log request returns, how a follow ends, what errors look like. `kubectl` works
//! against it. Everything is in memory; logs rotate (at 10 MiB unless the scenario says otherwise), so memory is bounded by the number of containers.
//!
//! ```no_run
//! # async fn example() -> Result<(), kubesim::Error> {
//! let config = kubesim::Config { listen: ([127, 0, 0, 1], 0).into(), scenario: kubesim::Scenario::demo() };
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
pub use cluster::{Cluster, Written};
pub use error::Error;
pub use scenario::{
    ContainerPlan, Fault, FaultKind, LinePlan, LogFiles, Output, PodPlan, Program, RestartPolicy, Role, Scenario,
    ScenarioError,
};

use listener::Port;
use node::log_rotation;
use simulation::Sim;

/// How to start a cluster.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the API listens; port 0 takes a free one. Unless the scenario says so nobody is asked for a token: keep it on loopback.
    pub listen: SocketAddr,
    /// What happens.
    pub scenario: Scenario,
}

/// Opens the port, starts serving and playing, and returns.
///
/// *Errors*: [`Error::Listen`], [`Error::LogDir`].
pub async fn start(config: Config) -> Result<Cluster, Error> {
    if let Some(dir) = &config.scenario.log_files.dir {
        std::fs::create_dir_all(dir).map_err(|source| Error::LogDir {
            dir: dir.clone(),
            source,
        })?;
    }
    let sim = Arc::new(Sim::new(&config.scenario));
    let down = sim.condition.api_down.subscribe();
    let addr = config.listen;
    let port = Port::bind(addr, down)
        .await
        .map_err(|source| Error::Listen { addr, source })?;
    let addr = port.addr();
    sim.store.create_namespace("default");
    for pod in &config.scenario.pods {
        sim.store.create_namespace(&pod.namespace);
    }
    let stop = sim.stop.clone();
    let serving =
        axum::serve(port, api::router(Arc::clone(&sim))).with_graceful_shutdown(stop.clone().cancelled_owned());
    sim.tasks.spawn(async move {
        if let Err(error) = serving.await {
            tracing::error!(%error, "serving ended");
        }
    });
    sim.tasks.spawn(
        stop.clone()
            .run_until_cancelled_owned(timeline::play(Arc::clone(&sim), config.scenario)),
    );
    sim.tasks.spawn(
        stop.clone()
            .run_until_cancelled_owned(log_rotation::run(Arc::clone(&sim))),
    );
    tracing::info!(%addr, "simulated cluster started");
    Ok(Cluster { sim, addr })
}
