//! `tributary kubesim`: the simulated Kubernetes cluster alone.

use std::{fs, net::SocketAddr, path::PathBuf};

use anyhow::{Context, anyhow};
use clap::Args;
use kubesim::{Cluster, Config, Scenario};
use tokio_util::sync::CancellationToken;

use crate::console as say;

#[derive(Args)]
pub(crate) struct KubesimArgs {
    /// Where the API listens, without authentication unless the scenario says otherwise; port 0 takes a free one
    #[arg(
        long,
        env = "TRIBUTARY_KUBESIM_LISTEN",
        value_name = "ADDR",
        default_value = "127.0.0.1:0"
    )]
    listen: SocketAddr,
    /// Writes the containers' log files there too, as a node does in /var/log/pods, rotation included
    #[arg(long, env = "TRIBUTARY_POD_LOG_DIR", value_name = "DIR")]
    pod_log_dir: Option<PathBuf>,
    #[command(flatten)]
    simulated: SimulatedArgs,
}

/// What `kubesim` and `demo` have in common.
#[derive(Args)]
pub(crate) struct SimulatedArgs {
    /// Writes a kubeconfig, so that kubectl can look at the simulated cluster
    #[arg(long, env = "TRIBUTARY_KUBECONFIG_OUT", value_name = "FILE")]
    kubeconfig_out: Option<PathBuf>,
    /// What happens on the simulated cluster (TOML) [default: the demo's two apps]
    #[arg(long, env = "TRIBUTARY_SCENARIO", value_name = "FILE")]
    scenario: Option<PathBuf>,
}

impl SimulatedArgs {
    /// The scenario that was asked for.
    ///
    /// # Errors
    /// One line with the file and what is wrong in it.
    pub(crate) fn scenario(&self) -> anyhow::Result<Scenario> {
        let Some(path) = &self.scenario else {
            return Ok(Scenario::demo());
        };
        let text = fs::read_to_string(path).with_context(|| format!("cannot read the scenario {}", path.display()))?;
        Scenario::from_toml(&text).with_context(|| format!("the scenario {} cannot be played", path.display()))
    }

    /// Starts the cluster and writes its kubeconfig where one was asked for.
    pub(crate) async fn start(&self, listen: SocketAddr, scenario: Scenario) -> anyhow::Result<Cluster> {
        // The error names its cause itself.
        let started = kubesim::start(Config { listen, scenario }).await;
        let cluster = started.map_err(|error| {
            let advice = match &error {
                kubesim::Error::LogDir { .. } => "choose another directory with --pod-log-dir",
                _ => "choose another address with --listen, port 0 takes a free one",
            };
            anyhow!("{error} ({advice})")
        })?;
        if let Some(path) = &self.kubeconfig_out {
            let written = fs::write(path, cluster.kubeconfig());
            if let Err(error) = written {
                cluster.shutdown().await;
                return Err(error).with_context(|| format!("cannot write the kubeconfig {}", path.display()));
            }
        }
        Ok(cluster)
    }
}

/// Runs until told to stop.
pub(crate) async fn run(args: KubesimArgs, shutdown: CancellationToken) -> anyhow::Result<()> {
    let mut scenario = args.simulated.scenario()?;
    scenario.log_files.dir = args.pod_log_dir;
    let cluster = args.simulated.start(args.listen, scenario).await?;
    say::aside(&format!("listening on http://{}", cluster.addr()));
    shutdown.cancelled().await;
    cluster.shutdown().await;
    Ok(())
}
