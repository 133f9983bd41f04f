//! `tributary up`: all of it in one process, on the cluster of the current kubeconfig.

use std::path::PathBuf;

use clap::Args;
use tokio_util::sync::CancellationToken;

use crate::{
    console as say,
    flags::{StackArgs, default_data_dir},
    kube_client as client,
    stack::Stack,
};

#[derive(Args)]
pub(crate) struct UpArgs {
    #[command(flatten)]
    stack: StackArgs,
    /// What is kept on this machine: lines, and how far was read [default: $XDG_DATA_HOME/tributary, or ~/.local/share/tributary]
    #[arg(long, env = "TRIBUTARY_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

/// Runs until told to stop.
pub(crate) async fn run(args: UpArgs, shutdown: CancellationToken) -> anyhow::Result<()> {
    args.stack.check()?;
    let data_dir = match args.data_dir {
        Some(dir) => dir,
        None => default_data_dir()?,
    };
    let client = tokio::select! {
        client = client::from_kubeconfig() => client?,
        () = shutdown.cancelled() => return Ok(()),
    };
    let stack = Stack::start(&args.stack, &data_dir, client).await?;
    say::aside(&format!(
        "read an app (by default a namespace is one): tributary logs --server {} APP",
        stack.url()
    ));
    stack.run(shutdown).await
}
