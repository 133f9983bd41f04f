//! `tributary logs APP`: reads an app's log onto stdout, and goes on where it was when the connection breaks.

mod printer;
mod resume;
mod sse;

use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use http::{Method, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    api_client::{Server, ServerArgs, encoded, refusal},
    console as say,
};
use printer::{Output, Printed, Printer};
use resume::Place;
use sse::Events;

/// A server says something every 15 s: one that has been silent for so long is gone.
const SILENCE: Duration = Duration::from_secs(45);

/// How long is waited before the first try to connect again, and at most before a later one. Each time a random part of it: after a deploy not all come at once.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(15);

#[derive(Args)]
pub(crate) struct LogsArgs {
    /// The app: by default the pods' namespace
    app: String,
    /// How many lines of history come first [default: 100, or with --since all]
    #[arg(short = 'n', long = "num-lines", value_name = "N")]
    num_lines: Option<u64>,
    /// End behind the history instead of going on with what is printed from now on
    #[arg(long)]
    no_follow: bool,
    /// Only lines printed since: how long ago (15m), or a time (2026-11-23T07:00:00Z)
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only lines of this process, or with a * at its end of all that begin so
    #[arg(long, value_name = "NAME")]
    process: Option<String>,
    /// Only lines that match this regular expression
    #[arg(long, value_name = "REGEX")]
    grep: Option<String>,
    /// How lines are printed: whole, as JSON objects, or their text alone
    #[arg(short = 'o', long, value_enum, default_value_t = Output::Text)]
    output: Output,
    #[command(flatten)]
    server: ServerArgs,
}

/// Reads until the server has no more, or whoever reads stdout goes away.
pub(crate) async fn run(args: LogsArgs, shutdown: CancellationToken) -> anyhow::Result<()> {
    let mut reader = Reader::new(args)?;
    tokio::select! {
        read = reader.read() => read,
        // Ctrl-C is how one stops to look.
        () = shutdown.cancelled() => Ok(()),
    }
}

struct Reader {
    args: LogsArgs,
    server: Server,
    path: String,
    place: Place,
    printer: Printer,
}

/// How one connection ended.
enum Ended {
    /// All that was asked for has been printed, or nobody reads it.
    Done,
    /// The server goes, or the connection broke.
    Broken,
}

impl Reader {
    fn new(args: LogsArgs) -> anyhow::Result<Self> {
        Ok(Self {
            server: Server::new(&args.server)?,
            path: path(&args),
            place: Place::default(),
            printer: Printer::new(args.output),
            args,
        })
    }

    async fn read(&mut self) -> anyhow::Result<()> {
        let mut response = self.first().await?;
        loop {
            if let Ended::Done = self.print(response).await? {
                return Ok(());
            }
            response = self.again().await?;
        }
    }

    /// The first connection: what keeps it from being made is the user's to know.
    async fn first(&self) -> anyhow::Result<Response<Incoming>> {
        let response = self.ask().await.map_err(|error| self.server.unreachable(&error))?;
        self.accepted(response).await
    }

    /// Connects again, however long it takes; it is said once, where it takes long.
    async fn again(&self) -> anyhow::Result<Response<Incoming>> {
        let (mut wait, mut tries) = (FIRST_WAIT, 0);
        loop {
            tokio::time::sleep(wait.mul_f64(rand::random())).await;
            wait = (wait * 2).min(LONGEST_WAIT);
            let failed = match self.ask().await {
                Ok(response) if !is_transient(response.status()) => return self.accepted(response).await,
                Ok(response) => {
                    let asked = retry_after(&response);
                    wait = wait.max(asked);
                    refusal(response.status(), response.into_body()).await
                }
                Err(error) => error,
            };
            tries += 1;
            if tries == 4 {
                say::aside(&format!(
                    "tributary: {} does not answer ({failed}): trying until it does",
                    self.args.server.server
                ));
            }
        }
    }

    async fn ask(&self) -> Result<Response<Incoming>, String> {
        let mut request = self.server.request(Method::GET, &self.path);
        request = request.header(header::ACCEPT, "text/event-stream");
        if let Some(cursor) = self.place.cursor() {
            request = request.header("last-event-id", cursor);
        }
        let asked = tokio::time::timeout(SILENCE, self.server.send(request, String::new())).await;
        asked.map_err(|_| "no answer".to_owned())?
    }

    async fn accepted(&self, response: Response<Incoming>) -> anyhow::Result<Response<Incoming>> {
        let status = response.status();
        if status != StatusCode::OK {
            bail!("{}: {}", self.args.app, refusal(status, response.into_body()).await);
        }
        Ok(response)
    }

    /// Prints what comes, once: what was printed behind the last place that the server told comes again.
    async fn print(&mut self, response: Response<Incoming>) -> anyhow::Result<Ended> {
        if self.place.may_have_missed() {
            self.printer
                .say("the connection broke before its place in the log was known: lines may be missing here")?;
        }
        let mut body = response.into_body();
        let mut events = Events::default();
        loop {
            let frame = tokio::time::timeout_at(Instant::now() + SILENCE, body.frame()).await;
            let Ok(Some(Ok(frame))) = frame else {
                return Ok(Ended::Broken);
            };
            let Ok(data) = frame.into_data() else { continue };
            events.push(&data);
            while let Some(event) = events.next() {
                if event.closing {
                    self.place.told(event.id);
                    self.printer.flush()?;
                    let ended = self.args.no_follow;
                    return Ok(if ended { Ended::Done } else { Ended::Broken });
                }
                if let Some(data) = event.data {
                    let line = printer::read(&data).context("the server sent what is no line")?;
                    if self.place.is_new(&line)
                        && let Printed::Unread = self.printer.line(&data, &line)?
                    {
                        return Ok(Ended::Done);
                    }
                }
                self.place.told(event.id);
            }
            if let Printed::Unread = self.printer.flush()? {
                return Ok(Ended::Done);
            }
        }
    }
}

fn path(args: &LogsArgs) -> String {
    let mut path = format!("/api/apps/{}/logs?follow={}", encoded(&args.app), !args.no_follow);
    let named = [
        ("num_lines", args.num_lines.map(|lines| lines.to_string())),
        ("since", args.since.clone()),
        ("process", args.process.clone()),
        ("regex", args.grep.clone()),
    ];
    for (name, value) in named {
        if let Some(value) = value {
            path.push_str(&format!("&{name}={}", encoded(&value)));
        }
    }
    path
}

/// Whether another try may fare better.
fn is_transient(status: StatusCode) -> bool {
    status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS
}

fn retry_after(response: &Response<Incoming>) -> Duration {
    let named = response.headers().get(header::RETRY_AFTER);
    let seconds = named.and_then(|value| value.to_str().ok()?.parse().ok());
    Duration::from_secs(seconds.unwrap_or_default()).min(LONGEST_WAIT * 4)
}
