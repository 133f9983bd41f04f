//! `tributary logs`: streams an app's logs to stdout and resumes after a broken connection.

mod printer;
mod resume;
mod sse;

use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use http::{Method, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio_util::sync::CancellationToken;

use crate::{
    api_client::{Server, encoded},
    console,
    flags::{server::ServerArgs, validation::UsageError},
};
use printer::{Output, Printed, Printer};
use resume::ResumePosition;
use sse::EventDecoder;

/// The server sends a heartbeat every 15 s: a connection that is idle for longer is broken.
const IDLE_TIMEOUT: Duration = Duration::from_secs(45);

/// Exponential backoff with full jitter, so that the clients do not all reconnect at once after a
/// rollout.
const FIRST_BACKOFF: Duration = Duration::from_millis(500);
const MAX_BACKOFF: Duration = Duration::from_secs(15);

/// After this many failed attempts to reconnect a message appears on stderr.
const ATTEMPTS_BEFORE_MESSAGE: u32 = 4;

/// Examples at the end of the help.
const EXAMPLES: &str = "\
Examples:
  tributary logs shop
  tributary logs shop -n 1000 --no-follow
  tributary logs shop --since 15m --process 'web*' --grep 'Sent 5..'
  tributary logs shop -o json --server https://logs.example.com --key \"$KEY\"";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct LogsArgs {
    /// Name of the app: by default, the namespace of its pods
    #[arg(value_name = "APP")]
    app: String,
    /// Print this many lines of history first [default: 100, or all with --since]
    #[arg(short = 'n', long = "num-lines", value_name = "N", help_heading = "Reading")]
    num_lines: Option<u64>,
    /// Exit after the history instead of following
    #[arg(long, help_heading = "Reading")]
    no_follow: bool,
    /// Print only lines since a duration ago (15m) or a time (2026-11-23T07:00:00Z)
    #[arg(long, value_name = "TIME", help_heading = "Reading")]
    since: Option<String>,
    /// Print only lines of this process; a trailing * matches any suffix
    #[arg(long, value_name = "NAME", help_heading = "Reading")]
    process: Option<String>,
    /// Print only lines that match this regular expression
    #[arg(long, value_name = "REGEX", help_heading = "Reading")]
    grep: Option<String>,
    /// Print lines in this format
    #[arg(short = 'o', long, value_name = "FORMAT", value_enum, default_value_t = Output::Text, help_heading = "Reading")]
    output: Output,
    #[command(flatten)]
    server: ServerArgs,
}

/// Reads until the server has no more lines, stdout is closed, or `shutdown`.
pub(crate) async fn run(args: LogsArgs, shutdown: CancellationToken) -> anyhow::Result<()> {
    let mut client = LogClient::new(args)?;
    tokio::select! {
        read = client.read() => read,
        () = shutdown.cancelled() => Ok(()),
    }
}

struct LogClient {
    args: LogsArgs,
    server: Server,
    path: String,
    position: ResumePosition,
    printer: Printer,
}

/// How a connection ended.
enum Ended {
    /// All lines are printed, or stdout is closed.
    Finished,
    /// The server is shutting down, or the connection broke.
    Broken,
}

impl LogClient {
    fn new(args: LogsArgs) -> anyhow::Result<Self> {
        Ok(Self {
            server: Server::new(&args.server)?,
            path: path(&args),
            position: ResumePosition::default(),
            printer: Printer::new(args.output),
            args,
        })
    }

    async fn read(&mut self) -> anyhow::Result<()> {
        let mut response = self.connect().await?;
        loop {
            if let Ended::Finished = self.print(response).await? {
                return Ok(());
            }
            response = self.reconnect().await?;
        }
    }

    /// Connects for the first time: a failure is an error.
    async fn connect(&self) -> anyhow::Result<Response<Incoming>> {
        let response = self.send().await.map_err(|error| self.server.unreachable(&error))?;
        self.accept(response).await
    }

    /// Connects again, however long it takes.
    async fn reconnect(&self) -> anyhow::Result<Response<Incoming>> {
        let (mut backoff, mut attempts) = (FIRST_BACKOFF, 0);
        loop {
            tokio::time::sleep(backoff.mul_f64(rand::random())).await;
            backoff = (backoff * 2).min(MAX_BACKOFF);
            let cause = match self.send().await {
                Ok(response) if !is_transient(response.status()) => return self.accept(response).await,
                Ok(response) => {
                    let retry_after = retry_after(&response);
                    backoff = backoff.max(retry_after);
                    self.server.error_message(response.status(), response.into_body()).await
                }
                Err(error) => error,
            };
            attempts += 1;
            if attempts == ATTEMPTS_BEFORE_MESSAGE {
                console::eprintln_line(&format!(
                    "tributary: cannot reach {} ({cause}); retrying until it responds",
                    self.args.server.printable_url()
                ));
            }
        }
    }

    async fn send(&self) -> Result<Response<Incoming>, String> {
        let mut request = self.server.request(Method::GET, &self.path);
        request = request.header(header::ACCEPT, "text/event-stream");
        if let Some(cursor) = self.position.cursor() {
            request = request.header("last-event-id", cursor);
        }
        let response = tokio::time::timeout(IDLE_TIMEOUT, self.server.send(request, String::new())).await;
        response.map_err(|_| format!("no answer within {} s", IDLE_TIMEOUT.as_secs()))?
    }

    async fn accept(&self, response: Response<Incoming>) -> anyhow::Result<Response<Incoming>> {
        let status = response.status();
        if status != StatusCode::OK {
            let message = self.server.error_message(status, response.into_body()).await;
            if status == StatusCode::UNPROCESSABLE_ENTITY
                && let Some(error) = self.invalid_flag(&message)
            {
                return Err(error.into());
            }
            bail!("cannot read app {}: {message}", self.args.app);
        }
        Ok(response)
    }

    /// Returns the usage error for a parameter that the server rejected as `NAME: REASON`.
    fn invalid_flag(&self, message: &str) -> Option<UsageError> {
        let (name, reason) = message.split_once(": ")?;
        let (flag, value) = match name {
            "num_lines" => ("--num-lines", self.args.num_lines.map(|lines| lines.to_string())),
            "since" => ("--since", self.args.since.clone()),
            "process" => ("--process", self.args.process.clone()),
            "regex" => ("--grep", self.args.grep.clone()),
            _ => return None,
        };
        Some(UsageError::from(format!("{flag} {}: {reason}", value?)))
    }

    /// Prints each line of a response once.
    async fn print(&mut self, response: Response<Incoming>) -> anyhow::Result<Ended> {
        if self.position.may_have_gap() {
            self.printer
                .remark("the connection broke before the first cursor: lines may be missing here")?;
        }
        let mut body = response.into_body();
        let mut events = EventDecoder::default();
        loop {
            let frame = tokio::time::timeout(IDLE_TIMEOUT, body.frame()).await;
            let Ok(Some(Ok(frame))) = frame else {
                return Ok(Ended::Broken);
            };
            let Ok(data) = frame.into_data() else { continue };
            events.push(&data);
            while let Some(event) = events.next() {
                if event.closing {
                    self.position.set_cursor(event.id);
                    self.printer.flush()?;
                    return Ok(if self.args.no_follow {
                        Ended::Finished
                    } else {
                        Ended::Broken
                    });
                }
                if let Some(data) = event.data {
                    let line = printer::parse(&data).with_context(|| {
                        format!(
                            "{} sent an event that is not a line; check --server",
                            self.args.server.printable_url()
                        )
                    })?;
                    if self.position.insert(&line)
                        && let Printed::Closed = self.printer.line(&data, &line)?
                    {
                        return Ok(Ended::Finished);
                    }
                }
                self.position.set_cursor(event.id);
            }
            if let Printed::Closed = self.printer.flush()? {
                return Ok(Ended::Finished);
            }
        }
    }
}

fn path(args: &LogsArgs) -> String {
    let mut path = format!("/api/apps/{}/logs?follow={}", encoded(&args.app), !args.no_follow);
    let parameters = [
        ("num_lines", args.num_lines.map(|lines| lines.to_string())),
        ("since", args.since.clone()),
        ("process", args.process.clone()),
        ("regex", args.grep.clone()),
    ];
    for (name, value) in parameters {
        if let Some(value) = value {
            path.push_str(&format!("&{name}={}", encoded(&value)));
        }
    }
    path
}

/// Returns whether a later attempt may succeed.
fn is_transient(status: StatusCode) -> bool {
    status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS
}

fn retry_after(response: &Response<Incoming>) -> Duration {
    let header = response.headers().get(header::RETRY_AFTER);
    let seconds = header.and_then(|value| value.to_str().ok()?.parse().ok());
    Duration::from_secs(seconds.unwrap_or_default()).min(MAX_BACKOFF * 4)
}
