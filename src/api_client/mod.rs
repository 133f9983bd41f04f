//! A server that is asked: where it is, and what proves that one may.

mod netrc;

use anyhow::{Context, bail};
use clap::Args;
use http::{Method, Request, Response, StatusCode, Uri, header, request};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::kube_client::innermost;

/// The most of an error's body that is looked at.
const MAX_ERROR_BYTES: usize = 16 * 1024;

/// Which server, and who asks.
#[derive(Args)]
pub(crate) struct ServerArgs {
    /// Where the streamer listens
    #[arg(
        long,
        env = "TRIBUTARY_SERVER",
        value_name = "URL",
        default_value = "http://127.0.0.1:8080"
    )]
    pub(crate) server: String,
    /// What proves that one may [default: from the netrc file, where it names the server's host]
    #[arg(long, env = "TRIBUTARY_KEY", value_name = "KEY", hide_env_values = true)]
    key: Option<String>,
}

/// A server that is asked.
pub(crate) struct Server {
    url: String,
    authorization: Option<String>,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

impl Server {
    /// The one that these name.
    ///
    /// # Errors
    /// One line that says what to do.
    pub(crate) fn new(args: &ServerArgs) -> anyhow::Result<Self> {
        let url = args.server.trim_end_matches('/');
        let wrong = || format!("--server {}: give a URL such as http://127.0.0.1:8080", args.server);
        let uri: Uri = url.parse().with_context(wrong)?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none() {
            bail!(wrong());
        }
        Ok(Self {
            authorization: netrc::authorization(args.key.as_deref(), uri.host().unwrap_or_default()),
            client: client(&uri)?,
            url: url.to_owned(),
        })
    }

    /// Whether there is something that proves that one may.
    pub(crate) fn has_key(&self) -> bool {
        self.authorization.is_some()
    }

    /// A request for this path of the server.
    pub(crate) fn request(&self, method: Method, path: &str) -> request::Builder {
        let request = Request::builder().method(method).uri(format!("{}{path}", self.url));
        match &self.authorization {
            Some(authorization) => request.header(header::AUTHORIZATION, authorization),
            None => request,
        }
    }

    /// Sends it. Without a time: that is the caller's.
    ///
    /// # Errors
    /// Why there is no answer, in words.
    pub(crate) async fn send(&self, request: request::Builder, body: String) -> Result<Response<Incoming>, String> {
        let request = request.body(Full::from(body)).map_err(|error| error.to_string())?;
        self.client.request(request).await.map_err(|error| innermost(&error))
    }

    /// That it cannot be reached, in one line that says what to do.
    pub(crate) fn unreachable(&self, why: &str) -> anyhow::Error {
        anyhow::anyhow!(
            "cannot reach {}: {why} (is `tributary up` running there? --server names another place)",
            self.url
        )
    }
}

/// A text as a part of a path or a query.
pub(crate) fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// A client that trusts whom the machine trusts (`SSL_CERT_FILE` names other roots). They are read only where they are needed.
fn client(uri: &Uri) -> anyhow::Result<Client<HttpsConnector<HttpConnector>, Full<Bytes>>> {
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

/// What the server says for itself, or its status where it says nothing.
pub(crate) async fn refusal(status: StatusCode, body: Incoming) -> String {
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
