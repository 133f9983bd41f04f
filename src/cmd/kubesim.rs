//! `tributary kubesim`: the simulated Kubernetes cluster alone.

use std::{net::SocketAddr, path::PathBuf};

use clap::Args;
use tokio_util::sync::CancellationToken;

use crate::{console, flags::simulation::SimulationArgs};

/// Examples at the end of the help.
const EXAMPLES: &str = "\
Examples:
  tributary kubesim --kubeconfig-out kubeconfig
  tributary kubesim --kubeconfig-out kubeconfig --scenario scenario.toml
  kubectl --kubeconfig kubeconfig get pods --all-namespaces";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct KubesimArgs {
    /// Serve the simulated API on this address, without authentication unless the scenario enables
    /// it; port 0 means any free port
    #[arg(
        long,
        env = "TRIBUTARY_KUBESIM_LISTEN",
        value_name = "ADDR",
        default_value = "127.0.0.1:0",
        value_parser = crate::flags::values::listen
    )]
    listen: SocketAddr,
    /// Write the containers' log files to this directory too, laid out and rotated as in
    /// /var/log/pods
    #[arg(long, env = "TRIBUTARY_POD_LOG_DIR", value_name = "DIR")]
    pod_log_dir: Option<PathBuf>,
    #[command(flatten)]
    simulation: SimulationArgs,
}

/// Runs until `shutdown`.
pub(crate) async fn run(args: KubesimArgs, shutdown: CancellationToken) -> anyhow::Result<()> {
    let mut scenario = args.simulation.scenario()?;
    scenario.log_files.dir = args.pod_log_dir;
    let cluster = args.simulation.start(args.listen, scenario).await?;
    console::eprintln_line(&format!("listening on http://{}", cluster.addr()));
    shutdown.cancelled().await;
    cluster.shutdown().await;
    Ok(())
}
