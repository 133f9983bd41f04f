//! `tributary logs APP`: reads an app's log onto stdout, and goes on where it was when the connection breaks.

mod events;
mod key;
mod place;
mod print;

use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use clap::Args;
use http::{Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::{Bytes, Incoming};
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{client::innermost, say};
use events::Events;
use place::Place;
use print::{Output, Printed, Printer};

/// The most of an error's body that is looked at.
const MAX_ERROR_BYTES: usize = 16 * 1024;

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
    /// Where the streamer listens
    #[arg(
        long,
        env = "TRIBUTARY_SERVER",
        value_name = "URL",
        default_value = "http://127.0.0.1:8080"
    )]
    server: String,
    /// What proves that one may read [default: from the netrc file, where it names the server's host]
    #[arg(long, env = "TRIBUTARY_KEY", value_name = "KEY", hide_env_values = true)]
    key: Option<String>,
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
    uri: Uri,
    authorization: Option<String>,
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
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
        let uri = uri(&args)?;
        let authorization = key::authorization(args.key.as_deref(), uri.host().unwrap_or_default());
        Ok(Self {
            authorization,
            client: client(&uri)?,
            uri,
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
        let response = self.ask().await.map_err(|error| {
            anyhow!(
                "cannot reach {}: {error} (is `tributary up` running there? --server names another place)",
                self.args.server
            )
        })?;
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
                    self.args.server
                ));
            }
        }
    }

    async fn ask(&self) -> Result<Response<Incoming>, String> {
        let mut request = Request::get(&self.uri).header(header::ACCEPT, "text/event-stream");
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        if let Some(cursor) = self.place.cursor() {
            request = request.header("last-event-id", cursor);
        }
        let request = request.body(Empty::new()).map_err(|error| error.to_string())?;
        let asked = tokio::time::timeout(SILENCE, self.client.request(request)).await;
        let answered = asked.map_err(|_| "no answer".to_owned())?;
        answered.map_err(|error| innermost(&error))
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
                    let line = print::read(&data).context("the server sent what is no line")?;
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

/// A client that trusts whom the machine trusts (`SSL_CERT_FILE` names other roots). They are read only where they are needed.
fn client(uri: &Uri) -> anyhow::Result<Client<HttpsConnector<HttpConnector>, Empty<Bytes>>> {
    let config = rustls::ClientConfig::builder();
    let config = if uri.scheme_str() == Some("https") {
        let roots = config.with_native_roots().context(
            "no certificate authority to trust (install ca-certificates, or name a file of them in SSL_CERT_FILE)",
        )?;
        roots.with_no_client_auth()
    } else {
        config
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth()
    };
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(config)
        .https_or_http()
        .enable_http1()
        .build();
    Ok(Client::builder(TokioExecutor::new()).build(connector))
}

fn uri(args: &LogsArgs) -> anyhow::Result<Uri> {
    let server = args.server.trim_end_matches('/');
    let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let mut uri = format!(
        "{server}/api/apps/{}/logs?follow={}",
        encode(&args.app),
        !args.no_follow
    );
    let named = [
        ("num_lines", args.num_lines.map(|lines| lines.to_string())),
        ("since", args.since.clone()),
        ("process", args.process.clone()),
        ("regex", args.grep.clone()),
    ];
    for (name, value) in named {
        if let Some(value) = value {
            uri.push_str(&format!("&{name}={}", encode(&value)));
        }
    }
    let uri: Uri = uri
        .parse()
        .with_context(|| format!("--server {}: give a URL such as http://127.0.0.1:8080", args.server))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none() {
        bail!("--server {}: give a URL such as http://127.0.0.1:8080", args.server);
    }
    Ok(uri)
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

/// What the server says for itself, or its status where it says nothing.
async fn refusal(status: StatusCode, body: Incoming) -> String {
    let body = Limited::new(body, MAX_ERROR_BYTES)
        .collect()
        .await
        .map(|body| body.to_bytes())
        .unwrap_or_default();
    let errors: Option<serde_json::Value> = serde_json::from_slice(&body).ok();
    let said = errors
        .as_ref()
        .and_then(|errors| errors["errors"][""][0].as_str())
        .map(str::to_owned);
    said.unwrap_or_else(|| format!("the server answered {status}"))
}
