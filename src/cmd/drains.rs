//! `tributary drains`: manages an app's drains.

use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use http::{Method, StatusCode, header};
use http_body_util::BodyExt;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    api_client::{Server, encoded},
    console,
    flags::server::ServerArgs,
};

/// How long a request may take; a test of a drain takes up to a minute.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(90);

/// Examples at the end of the help.
const EXAMPLES: &str = "\
Examples:
  tributary drains add shop syslog+tls://logs.example.com:6514
  tributary drains list shop
  tributary drains test shop 1
  tributary drains remove shop 1";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DrainsArgs {
    #[command(subcommand)]
    command: DrainsCommand,
}

#[derive(Subcommand)]
enum DrainsCommand {
    /// List an app's drains: id, URL and token
    #[command(after_help = "Examples:\n  tributary drains list shop")]
    List(AppArgs),
    /// Add a drain and print its id
    #[command(
        after_help = "Examples:\n  tributary drains add shop syslog+tls://logs.example.com:6514\n  tributary drains add shop https://user:password@logs.example.com/ingest"
    )]
    Add(AddArgs),
    /// Remove a drain
    #[command(after_help = "Examples:\n  tributary drains remove shop 1")]
    Remove(DrainArgs),
    /// Show a drain's state, counters and last error
    #[command(after_help = "Examples:\n  tributary drains show shop 1")]
    Show(DrainArgs),
    /// Connect to a drain step by step and send one line; exit 1 if a step fails
    #[command(after_help = "Examples:\n  tributary drains test shop 1")]
    Test(DrainArgs),
}

#[derive(Args)]
struct AppArgs {
    /// Name of the app
    #[arg(value_name = "APP")]
    app: String,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Args)]
struct AddArgs {
    /// Name of the app
    #[arg(value_name = "APP")]
    app: String,
    /// URL of the receiver: syslog+tls://HOST:PORT, syslog+tcp://, syslog:// (UDP) or https://; see
    /// docs/developers/drains.md
    #[arg(value_name = "URL")]
    url: String,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Args)]
struct DrainArgs {
    /// Name of the app
    #[arg(value_name = "APP")]
    app: String,
    /// Id of the drain, as printed by `tributary drains list`
    #[arg(value_name = "ID")]
    id: u32,
    #[command(flatten)]
    server: ServerArgs,
}

/// One step of a drain test, as the server reports it.
#[derive(Deserialize)]
struct ProbeStep {
    step: String,
    ok: bool,
    millis: u64,
    detail: String,
}

/// Runs the command.
pub(crate) async fn run(args: DrainsArgs) -> anyhow::Result<()> {
    match args.command {
        DrainsCommand::List(args) => list(&args).await,
        DrainsCommand::Add(args) => {
            let body = json!({"url": args.url});
            let added = request(
                (&args.server, &args.app),
                Method::POST,
                &drains_path(&args.app),
                Some(body),
            )
            .await?;
            console::println_line(&added["id"].to_string())?;
            Ok(())
        }
        DrainsCommand::Remove(args) => {
            let body = json!({"drain_id": args.id});
            request(
                (&args.server, &args.app),
                Method::DELETE,
                &drains_path(&args.app),
                Some(body),
            )
            .await?;
            console::eprintln_line(&format!("removed drain {} of app {}", args.id, args.app));
            Ok(())
        }
        DrainsCommand::Show(args) => {
            let drain = request((&args.server, &args.app), Method::GET, &drain_path(&args), None).await?;
            for (name, value) in drain.as_object().into_iter().flatten() {
                console::println_line(&format!("{name}\t{}", unquoted(value)))?;
            }
            Ok(())
        }
        DrainsCommand::Test(args) => test(&args).await,
    }
}

async fn list(args: &AppArgs) -> anyhow::Result<()> {
    let drains = request((&args.server, &args.app), Method::GET, &drains_path(&args.app), None).await?;
    for drain in drains.as_array().into_iter().flatten() {
        let text = |name: &str| drain[name].as_str().unwrap_or_default();
        console::println_line(&format!("{}\t{}\t{}", drain["id"], text("url"), text("token")))?;
    }
    Ok(())
}

async fn test(args: &DrainArgs) -> anyhow::Result<()> {
    let path = format!("{}/test", drain_path(args));
    let mut report = request((&args.server, &args.app), Method::POST, &path, None).await?;
    let steps: Vec<ProbeStep> = serde_json::from_value(report["steps"].take())
        .context("the server's response is not a test report; check --server")?;
    for ProbeStep {
        step,
        ok,
        millis,
        detail,
    } in &steps
    {
        let result = if *ok { "ok" } else { "failed" };
        console::println_line(&format!("{step}\t{result}\t{millis} ms\t{detail}"))?;
    }
    if let Some(failed) = steps.iter().find(|step| !step.ok) {
        bail!(
            "cannot send to drain {}: {} failed: {}",
            args.id,
            failed.step,
            failed.detail
        );
    }
    console::println_line(&format!("sent\t{}", unquoted(&report["sent"]).trim_end()))?;
    Ok(())
}

fn drains_path(app: &str) -> String {
    format!("/api/apps/{}/drains", encoded(app))
}

fn drain_path(args: &DrainArgs) -> String {
    format!("{}/{}", drains_path(&args.app), args.id)
}

/// Formats a JSON value without quotes, and null as `-`.
fn unquoted(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    }
}

/// Returns the message of a failed request in terms of this program's commands.
fn drain_error(app: &str, status: StatusCode, message: &str) -> String {
    if status == StatusCode::NOT_FOUND && message.contains("no such drain") {
        return format!("no such drain in app {app}; list its drains with `tributary drains list {app}`");
    }
    message.to_owned()
}

/// Sends a request for an app's drains and returns the `data` of the response.
async fn request(
    (args, app): (&ServerArgs, &str),
    method: Method,
    path: &str,
    body: Option<Value>,
) -> anyhow::Result<Value> {
    let server = Server::new(args)?;
    let mut request = server.request(method, path);
    if body.is_some() {
        request = request.header(header::CONTENT_TYPE, "application/json");
    }
    let body = body.map(|body| body.to_string()).unwrap_or_default();
    let exchange = async {
        let response = server
            .send(request, body)
            .await
            .map_err(|error| server.unreachable(&error))?;
        let status = response.status();
        if !status.is_success() {
            bail!(
                "{}",
                drain_error(app, status, &server.error_message(status, response.into_body()).await)
            );
        }
        let body = response
            .into_body()
            .collect()
            .await
            .with_context(|| format!("the connection to {} broke", args.printable_url()))?
            .to_bytes();
        let mut response: Value = serde_json::from_slice(&body)
            .with_context(|| format!("the response of {} is not JSON; check --server", args.printable_url()))?;
        Ok(response["data"].take())
    };
    let exchange = tokio::time::timeout(ANSWER_TIMEOUT, exchange).await;
    exchange.unwrap_or_else(|_| {
        bail!(
            "no answer from {} within {} s; check that the server is not overloaded",
            args.printable_url(),
            ANSWER_TIMEOUT.as_secs()
        )
    })
}
