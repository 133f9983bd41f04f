//! `tributary apps`: the apps that a cluster's bus knows.

use anyhow::bail;
use bus::AppName;
use clap::{Args, Subcommand};

use crate::{
    console as say,
    flags::{KeepArgs, bus::BusArgs},
};

#[derive(Args)]
pub(crate) struct AppsArgs {
    #[command(subcommand)]
    command: AppsCommand,
}

#[derive(Subcommand)]
enum AppsCommand {
    /// Lists the apps that have a topic, and which of them have drains
    List(ListArgs),
    /// Removes an app's topic, with its history and its drains' subscriptions; a pod of it that is still there makes it again
    Remove(RemoveArgs),
}

#[derive(Args)]
struct ListArgs {
    #[command(flatten)]
    bus: BusArgs,
    #[command(flatten)]
    keep: KeepArgs,
}

#[derive(Args)]
struct RemoveArgs {
    /// The app
    app: AppName,
    /// Remove it though it has drains: what they have not taken is lost
    #[arg(long)]
    with_drains: bool,
    #[command(flatten)]
    bus: BusArgs,
    #[command(flatten)]
    keep: KeepArgs,
}

/// Does what was asked for.
pub(crate) async fn run(args: AppsArgs) -> anyhow::Result<()> {
    match args.command {
        AppsCommand::List(args) => {
            let bus = args.bus.open("apps", args.keep.retention).await?;
            let (apps, drained) = (bus.apps().await?, bus.subscribed().await?);
            for app in apps {
                let drains = if drained.contains(&app) { "drains" } else { "-" };
                say::answer(&format!("{app}\t{drains}"));
            }
            bus.close().await;
        }
        AppsCommand::Remove(RemoveArgs {
            app,
            with_drains,
            bus,
            keep,
        }) => {
            let bus = bus.open("apps", keep.retention).await?;
            if !bus.apps().await?.contains(&app) {
                bail!("{app}: no such app (`tributary apps list` shows them)");
            }
            if !with_drains && bus.subscribed().await?.contains(&app) {
                bail!("{app} has drains: remove them first (`tributary drains remove`), or give --with-drains");
            }
            bus.remove(&app).await?;
            say::aside(&format!("removed {app}"));
            bus.close().await;
        }
    }
    Ok(())
}
