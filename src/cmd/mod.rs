//! The command line: one file or folder per subcommand. A subcommand uses the shared flags and the
//! modules of the binary, never another subcommand.

mod apps;
mod check;
mod collector;
mod completions;
#[cfg(feature = "demo")]
mod demo;
mod drains;
mod keys;
#[cfg(feature = "demo")]
mod kubesim;
mod logs;
mod man;
mod reference;
mod sinks;
mod streamer;
mod up;

use clap::{CommandFactory, Parser, Subcommand};
use tokio_util::sync::CancellationToken;

use crate::telemetry;

/// Examples at the end of the help.
const EXAMPLES: &str = "\
Examples:
  tributary demo                 Try everything on a simulated cluster
  tributary up                   Run all services on the cluster of your kubeconfig
  tributary logs shop            Stream the logs of the app `shop`
  tributary drains add shop syslog+tls://logs.example.com:6514";

/// Stream every container's logs to the developer who deployed it: live, merged across replicas
#[derive(Parser)]
#[command(
    name = "tributary",
    version = env!("VERSION_WITH_COMMIT"),
    max_term_width = 100,
    arg_required_else_help = true,
    after_help = EXAMPLES
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run all services in one process on a simulated Kubernetes cluster
    #[cfg(feature = "demo")]
    Demo(demo::DemoArgs),
    /// Run all services in one process on the cluster of the current kubeconfig
    Up(up::UpArgs),
    /// Read the logs of a node's pods and publish them on the bus
    Collector(collector::CollectorArgs),
    /// Serve live tails and history from the bus, and the HTTP API for drains
    Streamer(streamer::StreamerArgs),
    /// Forward lines from the bus to drains
    Sinks(sinks::SinksArgs),
    /// Run a simulated Kubernetes cluster for kubectl and tests
    #[cfg(feature = "demo")]
    Kubesim(kubesim::KubesimArgs),
    /// Stream the logs of an app
    Logs(logs::LogsArgs),
    /// List and remove the apps of a bus
    Apps(apps::AppsArgs),
    /// Check a deployment end to end and report problems
    Check(check::CheckArgs),
    /// List, add, remove, show and test the drains of an app
    Drains(drains::DrainsArgs),
    /// Create, list and revoke API keys
    Keys(keys::KeysArgs),
    /// Print shell completions
    Completions(completions::CompletionsArgs),
    /// Write man pages
    Man(man::ManArgs),
    /// Print a generated page of the reference
    #[command(hide = true)]
    Reference(reference::ReferenceArgs),
}

impl Cli {
    /// Returns the default filter of log events.
    pub(crate) fn log_filter(&self) -> &'static str {
        match &self.command {
            Command::Up(_) | Command::Collector(_) | Command::Streamer(_) | Command::Sinks(_) => {
                telemetry::SERVICE_FILTER
            }
            Command::Check(_) => telemetry::NO_EVENTS,
            _ => telemetry::COMMAND_FILTER,
        }
    }

    /// Returns whether the subcommand ends by itself after the first signal.
    pub(crate) fn shuts_down_gracefully(&self) -> bool {
        match &self.command {
            #[cfg(feature = "demo")]
            Command::Demo(_) | Command::Kubesim(_) => true,
            Command::Up(_) | Command::Collector(_) | Command::Streamer(_) | Command::Sinks(_) | Command::Logs(_) => {
                true
            }
            _ => false,
        }
    }

    /// Runs the subcommand. The services return after `graceful` is cancelled; the other commands
    /// are dropped by the caller.
    ///
    /// # Errors
    /// One line with what failed, the cause and what to do.
    pub(crate) async fn run(self, graceful: CancellationToken) -> anyhow::Result<()> {
        match self.command {
            #[cfg(feature = "demo")]
            Command::Demo(args) => demo::run(args, graceful).await,
            Command::Up(args) => up::run(args, graceful).await,
            Command::Collector(args) => collector::run(args, graceful).await,
            Command::Streamer(args) => streamer::run(args, graceful).await,
            Command::Sinks(args) => sinks::run(args, graceful).await,
            #[cfg(feature = "demo")]
            Command::Kubesim(args) => kubesim::run(args, graceful).await,
            Command::Logs(args) => logs::run(args, graceful).await,
            Command::Apps(args) => apps::run(args).await,
            Command::Check(args) => check::run(args).await,
            Command::Drains(args) => drains::run(args).await,
            Command::Keys(args) => keys::run(args).await,
            Command::Completions(args) => completions::run(&args, Self::command()),
            Command::Man(args) => man::run(&args, Self::command()),
            Command::Reference(args) => reference::run(&args, Self::command()),
        }
    }
}
