//! `tributary`: parses the command line, sets up telemetry and signals, and runs a subcommand.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the command line and the admin listener are not simulated"
)]

mod admin_listener;
mod all_in_one;
mod api_client;
mod bind_error;
mod cmd;
mod console;
mod deadline;
mod descriptors;
mod flags;
mod kube_client;
mod readiness;
mod service;
mod signals;
mod telemetry;
mod unknown_variables;
mod usage;

use std::process::ExitCode;

use anyhow::Context;
use clap::{CommandFactory, Parser};
use cmd::Cli;
use flags::validation::UsageError;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage::report(error),
    };
    let variables = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    for warning in unknown_variables::warnings(&Cli::command(), variables) {
        console::eprintln_line(&console::printable(&warning));
    }
    telemetry::start(cli.log_filter());
    match run(cli) {
        Ok(code) => code,
        Err(error) => {
            if let Some(invalid) = error.downcast_ref::<UsageError>() {
                return usage::report(usage::error(invalid));
            }
            let line = format!("tributary: {}", format!("{error:#}").replace('\n', " "));
            console::eprintln_line(&console::printable(&line));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    descriptors::raise_limit();
    // rustls needs a process-wide TLS provider before its first use.
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        tracing::debug!("TLS provider already installed");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the threads of the runtime")?;
    let outcome = runtime.block_on(async {
        let shutdown = signals::shutdown_on_signals(cli.shuts_down_gracefully())?;
        tokio::select! {
            ran = cli.run(shutdown.graceful) => ran.map(|()| ExitCode::SUCCESS),
            Ok(code) = shutdown.immediate => Ok(ExitCode::from(code)),
        }
    });
    // Pending disk reads and name lookups must not delay the exit.
    runtime.shutdown_background();
    outcome
}
