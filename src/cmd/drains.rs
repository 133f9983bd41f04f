//! `tributary drains`: where an app's lines are forwarded.

use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use http::{Method, header};
use http_body_util::BodyExt;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    api_client::{Server, ServerArgs, encoded, refusal},
    console as say,
};

/// How long a server may take; a test of a drain takes up to a minute.
const ANSWER_WAIT: Duration = Duration::from_secs(90);

#[derive(Args)]
pub(crate) struct DrainsArgs {
    #[command(subcommand)]
    command: DrainsCommand,
}

#[derive(Subcommand)]
enum DrainsCommand {
    /// Lists an app's drains: id, URL and token
    List(AppArgs),
    /// Adds a drain and prints its id: syslog+tls://HOST:PORT, syslog+tcp://, syslog:// (UDP), https://
    Add(AddArgs),
    /// Removes a drain
    Remove(DrainArgs),
    /// Shows how a drain is: whether lines flow, how many, what went wrong last
    Show(DrainArgs),
    /// Tries a drain step by step, and sends one line; fails where a step does
    Test(DrainArgs),
}

#[derive(Args)]
struct AppArgs {
    /// The app
    app: String,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Args)]
struct AddArgs {
    /// The app
    app: String,
    /// Where its lines are to go; docs/drains.md lists what can be said in it
    url: String,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Args)]
struct DrainArgs {
    /// The app
    app: String,
    /// Which drain, as `tributary drains list` shows it
    id: u32,
    #[command(flatten)]
    server: ServerArgs,
}

/// A step of a test.
#[derive(Deserialize)]
struct Step {
    step: String,
    ok: bool,
    millis: u64,
    detail: String,
}

/// Does what was asked for.
pub(crate) async fn run(args: DrainsArgs) -> anyhow::Result<()> {
    match args.command {
        DrainsCommand::List(args) => {
            for drain in ask(&args.server, Method::GET, &of(&args.app), None)
                .await?
                .as_array()
                .into_iter()
                .flatten()
            {
                let text = |name: &str| drain[name].as_str().unwrap_or_default();
                say::answer(&format!("{}\t{}\t{}", drain["id"], text("url"), text("token")));
            }
            Ok(())
        }
        DrainsCommand::Add(args) => {
            let added = ask(
                &args.server,
                Method::POST,
                &of(&args.app),
                Some(json!({"url": args.url})),
            )
            .await?;
            say::answer(&added["id"].to_string());
            Ok(())
        }
        DrainsCommand::Remove(args) => {
            let removed = json!({"drain_id": args.id});
            ask(&args.server, Method::DELETE, &of(&args.app), Some(removed)).await?;
            say::aside(&format!("removed the drain {} of {}", args.id, args.app));
            Ok(())
        }
        DrainsCommand::Show(args) => {
            let shown = ask(&args.server, Method::GET, &one(&args), None).await?;
            for (name, value) in shown.as_object().into_iter().flatten() {
                say::answer(&format!("{name}\t{}", plain(value)));
            }
            Ok(())
        }
        DrainsCommand::Test(args) => test(&args).await,
    }
}

async fn test(args: &DrainArgs) -> anyhow::Result<()> {
    let path = format!("{}/test", one(args));
    let mut tested = ask(&args.server, Method::POST, &path, None).await?;
    let steps: Vec<Step> =
        serde_json::from_value(tested["steps"].take()).context("the server answered what is no test")?;
    for Step {
        step,
        ok,
        millis,
        detail,
    } in &steps
    {
        let ok = if *ok { "ok" } else { "failed" };
        say::answer(&format!("{step}\t{ok}\t{millis} ms\t{detail}"));
    }
    if let Some(failed) = steps.iter().find(|step| !step.ok) {
        bail!(
            "the drain {} cannot be sent to: {}: {}",
            args.id,
            failed.step,
            failed.detail
        );
    }
    say::answer(&format!("sent\t{}", plain(&tested["sent"]).trim_end()));
    Ok(())
}

fn of(app: &str) -> String {
    format!("/api/apps/{}/drains", encoded(app))
}

fn one(args: &DrainArgs) -> String {
    format!("{}/{}", of(&args.app), args.id)
}

/// A value without JSON's quotes.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    }
}

/// The `data` of an answer.
async fn ask(args: &ServerArgs, method: Method, path: &str, body: Option<Value>) -> anyhow::Result<Value> {
    let server = Server::new(args)?;
    let mut request = server.request(method, path);
    if body.is_some() {
        request = request.header(header::CONTENT_TYPE, "application/json");
    }
    let body = body.map(|body| body.to_string()).unwrap_or_default();
    let asked = async {
        let response = server
            .send(request, body)
            .await
            .map_err(|error| server.unreachable(&error))?;
        let status = response.status();
        if !status.is_success() {
            bail!("{}", refusal(status, response.into_body()).await);
        }
        let body = response
            .into_body()
            .collect()
            .await
            .context("the connection broke")?
            .to_bytes();
        let mut answer: Value = serde_json::from_slice(&body).context("the server answered what is no JSON")?;
        Ok(answer["data"].take())
    };
    let asked = tokio::time::timeout(ANSWER_WAIT, asked).await;
    asked.unwrap_or_else(|_| bail!("{} does not answer within {} s", args.server, ANSWER_WAIT.as_secs()))
}
