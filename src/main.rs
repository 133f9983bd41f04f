//! `tributary`: the one binary. Parses the command line, sets up telemetry and signals, runs what was asked for.

mod admin;
mod api_client;
mod cmd;
mod console;
mod deadline;
mod flags;
mod kube_client;
mod service;
mod signals;
mod stack;
mod telemetry;

use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use cmd::{apps, check, collector, demo, drains, keys, kubesim, logs, sinks, streamer, up};
use console as say;

/// The log platform of a Kubernetes PaaS: every line delivered, or the reader is told how many are missing.
#[derive(Parser)]
#[command(name = "tributary", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Shows all of it in one process, on a simulated Kubernetes node.
    Demo(demo::DemoArgs),
    /// Runs all of it in one process, on the cluster of the current kubeconfig.
    Up(up::UpArgs),
    /// Collects the logs of a node's pods, and publishes them to a cluster's bus.
    Collector(collector::CollectorArgs),
    /// Serves readers from a cluster's bus.
    Streamer(streamer::StreamerArgs),
    /// Forwards lines from a cluster's bus to drains.
    Sinks(sinks::SinksArgs),
    /// Runs the simulated Kubernetes cluster alone, for kubectl and for tests.
    Kubesim(kubesim::KubesimArgs),
    /// Reads an app's log.
    Logs(logs::LogsArgs),
    /// Lists and removes the apps of a cluster's bus.
    Apps(apps::AppsArgs),
    /// Looks at a deployment, from its bus to a line's whole way, and says what is wrong.
    Check(check::CheckArgs),
    /// Lists, adds, removes, shows and tests an app's drains: where its lines are forwarded.
    Drains(drains::DrainsArgs),
    /// Adds, lists and revokes the keys of those who may read.
    Keys(keys::KeysArgs),
}

/// The conventional exit code of a program that Ctrl-C ended: 128 and the signal's number.
const INTERRUPTED: u8 = 130;

/// The conventional exit code of a command line that cannot be meant.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() => {
            say::aside(&format!("tributary: {} (see `tributary --help`)", usage_error(&error)));
            return ExitCode::from(USAGE);
        }
        // Help, or the version: what was asked for.
        Err(help) => {
            say::answer(help.render().to_string().trim_end());
            return ExitCode::SUCCESS;
        }
    };
    telemetry::start(match &cli.command {
        Command::Up(_) | Command::Collector(_) | Command::Streamer(_) | Command::Sinks(_) => telemetry::OPERATOR,
        Command::Demo(_)
        | Command::Kubesim(_)
        | Command::Logs(_)
        | Command::Apps(_)
        | Command::Drains(_)
        | Command::Keys(_) => telemetry::VISITOR,
        Command::Check(_) => telemetry::SILENT,
    });
    match run(cli.command) {
        Ok(code) => code,
        Err(error) => {
            // One line, whatever an error from below holds.
            say::aside(&format!("tributary: {}", format!("{error:#}").replace('\n', " ")));
            ExitCode::FAILURE
        }
    }
}

/// What is wrong with the command line, in one line: the parser's words without its usage text.
fn usage_error(error: &clap::Error) -> String {
    let rendered = error.render().to_string();
    let said = rendered
        .lines()
        .map(str::trim)
        .take_while(|line| !line.starts_with("Usage:"));
    let said: Vec<&str> = said
        .filter(|line| !line.is_empty())
        .map(|line| line.trim_start_matches("error: "))
        .collect();
    said.join("; ")
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    // One TLS provider in the whole program, named before anything asks for one.
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        tracing::debug!("a TLS provider was installed already");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start threads")?;
    let outcome = runtime.block_on(async {
        let shutdown = signals::on_signal()?;
        let stop = shutdown.graceful.clone();
        let ran = async {
            match command {
                Command::Demo(args) => demo::run(args, stop).await,
                Command::Up(args) => up::run(args, stop).await,
                Command::Collector(args) => collector::run(args, stop).await,
                Command::Streamer(args) => streamer::run(args, stop).await,
                Command::Sinks(args) => sinks::run(args, stop).await,
                Command::Kubesim(args) => kubesim::run(args, stop).await,
                Command::Logs(args) => logs::run(args, stop).await,
                Command::Apps(args) => apps::run(args).await,
                Command::Check(args) => check::run(args).await,
                Command::Drains(args) => drains::run(args).await,
                Command::Keys(args) => keys::run(args).await,
            }
        };
        tokio::select! {
            ran = ran => ran.map(|()| ExitCode::SUCCESS),
            () = shutdown.immediate.cancelled() => Ok(ExitCode::from(INTERRUPTED)),
        }
    });
    // What still reads a disk or resolves a name is not waited for.
    runtime.shutdown_background();
    outcome
}
