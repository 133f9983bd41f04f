//! `tributary logs APP`: reads an app's log onto stdout.

use std::io::{self, ErrorKind, Write};

use anyhow::{Context, anyhow, bail};
use clap::Args;
use http::{StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::{Bytes, Incoming};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tokio_util::sync::CancellationToken;

use crate::client::innermost;

/// The most of an error's body that is looked at.
const MAX_ERROR_BYTES: usize = 16 * 1024;

#[derive(Args)]
pub(crate) struct LogsArgs {
    /// The app: by default the pods' namespace
    app: String,
    /// How many lines of history come first
    #[arg(short = 'n', long = "num-lines", value_name = "N", default_value_t = 100)]
    num_lines: u64,
    /// End behind the history instead of going on with what is printed from now on
    #[arg(long)]
    no_follow: bool,
    /// Where the streamer listens
    #[arg(
        long,
        env = "TRIBUTARY_SERVER",
        value_name = "URL",
        default_value = "http://127.0.0.1:8080"
    )]
    server: String,
}

/// Reads until the server ends the log, or whoever reads stdout goes away.
pub(crate) async fn run(args: LogsArgs, shutdown: CancellationToken) -> anyhow::Result<()> {
    tokio::select! {
        read = read(&args) => read,
        // Ctrl-C is how one stops to look.
        () = shutdown.cancelled() => Ok(()),
    }
}

async fn read(args: &LogsArgs) -> anyhow::Result<()> {
    let uri = uri(args)?;
    let client: Client<HttpConnector, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let response = client.get(uri).await.map_err(|error| {
        anyhow!(
            "cannot reach {}: {} (is `tributary up` running there? --server names another place)",
            args.server,
            innermost(&error)
        )
    })?;
    let status = response.status();
    if status != StatusCode::OK {
        bail!("{}: {}", args.app, refusal(status, response.into_body()).await);
    }
    copy(response.into_body()).await
}

fn uri(args: &LogsArgs) -> anyhow::Result<Uri> {
    let server = args.server.trim_end_matches('/');
    let app = utf8_percent_encode(&args.app, NON_ALPHANUMERIC);
    let uri = format!(
        "{server}/api/apps/{app}/logs?num_lines={}&follow={}",
        args.num_lines, !args.no_follow
    );
    let uri: Uri = uri
        .parse()
        .with_context(|| format!("--server {}: give a URL such as http://127.0.0.1:8080", args.server))?;
    if uri.scheme_str() != Some("http") || uri.host().is_none() {
        bail!("--server {}: give a URL such as http://127.0.0.1:8080", args.server);
    }
    Ok(uri)
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

/// Prints the body as it comes: lines are seen at once, into a pipe too.
async fn copy(mut body: Incoming) -> anyhow::Result<()> {
    let mut stdout = io::stdout();
    while let Some(frame) = body.frame().await {
        let frame = frame.context("the connection broke: lines may be missing from here on")?;
        let Ok(data) = frame.into_data() else { continue };
        match stdout.write_all(&data).and_then(|()| stdout.flush()) {
            Ok(()) => {}
            // `| head` has seen enough.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
            Err(error) => return Err(error).context("cannot print"),
        }
    }
    Ok(())
}
