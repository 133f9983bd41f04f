//! `tributary apps`: lists and removes the apps of a bus.

use anyhow::bail;
use bus::AppName;
use clap::{Args, Subcommand};

use crate::{
    console,
    flags::{bus::BusArgs, storage::RetentionArgs},
};

/// Examples at the end of the help.
const EXAMPLES: &str = "\
Examples:
  tributary apps list --bus pubsub:my-project
  tributary apps remove shop --bus pubsub:my-project
  tributary apps remove shop --with-drains --bus pubsub:my-project";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct AppsArgs {
    #[command(subcommand)]
    command: AppsCommand,
}

#[derive(Subcommand)]
enum AppsCommand {
    /// List the apps that have a topic, and mark those with drains
    #[command(after_help = "Examples:\n  tributary apps list --bus pubsub:my-project")]
    List(ListArgs),
    /// Remove an app's topic with its history and its drains' subscriptions; a running pod of the
    /// app creates it again
    #[command(
        after_help = "Examples:\n  tributary apps remove shop --bus pubsub:my-project\n  tributary apps remove shop --with-drains --bus pubsub:my-project"
    )]
    Remove(RemoveArgs),
}

#[derive(Args)]
struct ListArgs {
    #[command(flatten)]
    bus: BusArgs,
    #[command(flatten)]
    retention: RetentionArgs,
}

#[derive(Args)]
struct RemoveArgs {
    /// Remove this app
    #[arg(value_name = "APP")]
    app: AppName,
    /// Remove an app that has drains; lines that they have not received are lost
    #[arg(long)]
    with_drains: bool,
    #[command(flatten)]
    bus: BusArgs,
    #[command(flatten)]
    retention: RetentionArgs,
}

/// Runs the command.
pub(crate) async fn run(args: AppsArgs) -> anyhow::Result<()> {
    match args.command {
        AppsCommand::List(args) => {
            let bus = args.bus.open("apps", args.retention.retention).await?;
            let (apps, with_drains) = (bus.apps().await?, bus.apps_with_subscriptions().await?);
            for app in apps {
                let drains = if with_drains.contains(&app) { "drains" } else { "-" };
                console::println_line(&format!("{app}\t{drains}"))?;
            }
            bus.close().await;
        }
        AppsCommand::Remove(RemoveArgs {
            app,
            with_drains,
            bus,
            retention,
        }) => {
            let bus = bus.open("apps", retention.retention).await?;
            if !bus.apps().await?.contains(&app) {
                bail!("app {app} not found on the bus; list the apps with `tributary apps list`");
            }
            if !with_drains && bus.apps_with_subscriptions().await?.contains(&app) {
                bail!("app {app} has drains; remove them with `tributary drains remove`, or pass --with-drains");
            }
            bus.remove(&app).await?;
            console::eprintln_line(&format!("removed app {app}"));
            bus.close().await;
        }
    }
    Ok(())
}
