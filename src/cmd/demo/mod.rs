//! `tributary demo`: all of it in one process, on a simulated Kubernetes node.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use tokio_util::sync::CancellationToken;

use crate::{
    cmd::kubesim::SimulatedArgs,
    console as say,
    flags::{Source, StackArgs},
    kube_client as client,
    stack::Stack,
};

#[derive(Args)]
pub(crate) struct DemoArgs {
    #[command(flatten)]
    stack: StackArgs,
    #[command(flatten)]
    simulated: SimulatedArgs,
    /// What is kept on this machine [default: a directory that goes away]
    #[arg(long, env = "TRIBUTARY_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

/// Runs until told to stop.
pub(crate) async fn run(mut args: DemoArgs, shutdown: CancellationToken) -> anyhow::Result<()> {
    args.stack.check()?;
    let mut scenario = args.simulated.scenario()?;
    let temporary = tempfile::tempdir().context("no directory for the demo's data")?;
    let data_dir = args.data_dir.unwrap_or_else(|| temporary.path().to_owned());
    let collect = &mut args.stack.collect;
    if collect.source == Source::Files || collect.pod_log_dir.is_some() {
        scenario.log_files.dir = Some(collect.pod_log_dir.get_or_insert_with(|| data_dir.join("pods")).clone());
    }
    let mut apps: Vec<String> = scenario.pods.iter().map(|pod| pod.namespace.clone()).collect();
    apps.sort();
    apps.dedup();
    let cluster = args.simulated.start(([127, 0, 0, 1], 0).into(), scenario).await?;
    let client = client::for_simulated(cluster.addr())?;
    let asks = args.stack.read.auth.asks_for_keys();
    let ran = match Stack::start(&args.stack, &data_dir, client).await {
        Ok(stack) => {
            stack.wait_for_apps(&apps).await;
            let who = if asks { "-u EMAIL:KEY " } else { "" };
            for app in apps {
                say::answer(&format!("curl -N {who}'{}/api/apps/{app}/logs'", stack.url()));
            }
            stack.run(shutdown).await
        }
        Err(error) => Err(error),
    };
    cluster.shutdown().await;
    ran
}
