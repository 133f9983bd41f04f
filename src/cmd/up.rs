//! `tributary up`: all services in one process, on the cluster of the current kubeconfig.

use std::path::PathBuf;

use clap::Args;
use tokio_util::sync::CancellationToken;

use crate::{
    all_in_one::Stack,
    console,
    flags::{all_in_one::StackArgs, storage::default_data_dir},
    kube_client,
};

/// Examples at the end of the help.
const EXAMPLES: &str = "\
Examples:
  tributary up
  tributary up --auth keys --listen 0.0.0.0:8080
  tributary up --source files --node-name $(hostname)";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct UpArgs {
    #[command(flatten)]
    stack: StackArgs,
    /// Store lines, checkpoints and the registry in this directory [default:
    /// $XDG_DATA_HOME/tributary or ~/.local/share/tributary]
    #[arg(long, env = "TRIBUTARY_DATA_DIR", value_name = "DIR", help_heading = "Storage")]
    data_dir: Option<PathBuf>,
}

/// Runs until `shutdown`.
pub(crate) async fn run(args: UpArgs, shutdown: CancellationToken) -> anyhow::Result<()> {
    args.stack.validate()?;
    let data_dir = match args.data_dir {
        Some(dir) => dir,
        None => default_data_dir()?,
    };
    let kubernetes = tokio::select! {
        client = kube_client::connect() => client?,
        () = shutdown.cancelled() => return Ok(()),
    };
    let stack = Stack::start(&args.stack, &data_dir, kubernetes).await?;
    console::eprintln_line(&format!(
        "read an app (by default, a namespace): tributary logs --server {} APP",
        stack.url()
    ));
    stack.run(shutdown).await
}
