//! The simulated cluster of `kubesim` and `demo`.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context, anyhow, bail};
use clap::Args;
use kubesim::{Cluster, Config, Scenario};

/// First line of a kubeconfig of the simulated cluster: only files with it are overwritten.
const MARKER: &str = "# Written by tributary for its simulated cluster.";

/// Flags of the simulated cluster.
#[derive(Args)]
pub(crate) struct SimulationArgs {
    /// Write a kubeconfig for the simulated cluster to this file
    #[arg(long, env = "TRIBUTARY_KUBECONFIG_OUT", value_name = "FILE")]
    kubeconfig_out: Option<PathBuf>,
    /// Play this scenario (TOML); see docs/simulator.md [default: the demo's two apps]
    #[arg(long, env = "TRIBUTARY_SCENARIO", value_name = "FILE")]
    scenario: Option<PathBuf>,
}

impl SimulationArgs {
    /// Returns whether the built-in scenario is played.
    pub(crate) fn is_built_in(&self) -> bool {
        self.scenario.is_none()
    }

    /// Reads the scenario.
    ///
    /// # Errors
    /// One line with the file, the position and the cause.
    pub(crate) fn scenario(&self) -> anyhow::Result<Scenario> {
        let Some(path) = &self.scenario else {
            return Ok(Scenario::demo());
        };
        let text = fs::read_to_string(path)
            .with_context(|| format!("cannot read the scenario {} (set by --scenario)", path.display()))?;
        Scenario::from_toml(&text).with_context(|| format!("invalid scenario {}", path.display()))
    }

    /// Starts the cluster and writes its kubeconfig.
    ///
    /// # Errors
    /// One line with the address or the file, the cause and the flag.
    pub(crate) async fn start(&self, listen: SocketAddr, scenario: Scenario) -> anyhow::Result<Cluster> {
        if let Some(path) = &self.kubeconfig_out {
            check_overwrite(path)?;
        }
        let started = kubesim::start(Config { listen, scenario }).await;
        let cluster = started.map_err(|error| {
            let advice = match &error {
                kubesim::Error::LogDir { .. } => "choose another directory with --pod-log-dir",
                _ => "choose another address or port with --listen (port 0: any free port)",
            };
            anyhow!("{error}; {advice}")
        })?;
        if let Some(path) = &self.kubeconfig_out {
            let written = fs::write(path, format!("{MARKER}\n{}", cluster.kubeconfig()));
            if let Err(error) = written {
                cluster.shutdown().await;
                return Err(error).with_context(|| {
                    format!(
                        "cannot write the kubeconfig {} (set by --kubeconfig-out)",
                        path.display()
                    )
                });
            }
        }
        Ok(cluster)
    }
}

/// Fails if a file exists that holds anything but a kubeconfig of a simulated cluster.
fn check_overwrite(path: &Path) -> anyhow::Result<()> {
    // Devices such as /dev/stdout are written in any case.
    let has_content = fs::metadata(path).is_ok_and(|file| file.is_file() && file.len() > 0);
    let is_own = || fs::read(path).is_ok_and(|text| text.starts_with(MARKER.as_bytes()));
    if has_content && !is_own() {
        bail!(
            "cannot write the kubeconfig {}: the file exists and was not written by tributary; remove it, or choose another file with --kubeconfig-out",
            path.display()
        );
    }
    Ok(())
}
