//! HTTP client of the commands that talk to a streamer.

mod netrc;

use std::{error::Error, io};

use anyhow::Context;
use http::{Method, Request, Response, StatusCode, Uri, header, request};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::{
    console::without_credentials,
    flags::{server::ServerArgs, validation::UsageError},
};

/// Bytes of an error response that are read.
const MAX_ERROR_BYTES: usize = 16 * 1024;

/// A streamer, its URL and the credentials for it.
pub(crate) struct Server {
    url: String,
    authorization: Option<String>,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

impl Server {
    /// Prepares a client; it connects with the first request.
    ///
    /// # Errors
    /// One line with the URL and what to do, if the URL or the certificate authorities are unusable.
    pub(crate) fn new(args: &ServerArgs) -> anyhow::Result<Self> {
        let url = args.server.trim_end_matches('/');
        let uri = url.parse::<Uri>().ok();
        let is_valid = |uri: &Uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some();
        let Some(uri) = uri.filter(is_valid) else {
            let value = args.printable_url();
            let message = format!("--server {value}: expected a URL such as http://127.0.0.1:8080");
            return Err(UsageError::from(message).into());
        };
        Ok(Self {
            authorization: netrc::authorization(args.key.as_deref(), uri.host().unwrap_or_default()),
            client: client(&uri)?,
            url: url.to_owned(),
        })
    }

    /// Returns whether requests carry credentials.
    pub(crate) fn has_key(&self) -> bool {
        self.authorization.is_some()
    }

    /// Starts a request for a path of the server.
    pub(crate) fn request(&self, method: Method, path: &str) -> request::Builder {
        let request = Request::builder().method(method).uri(format!("{}{path}", self.url));
        match &self.authorization {
            Some(authorization) => request.header(header::AUTHORIZATION, authorization),
            None => request,
        }
    }

    /// Sends a request. It has no timeout: the caller sets one.
    ///
    /// # Errors
    /// The cause, if there is no response.
    pub(crate) async fn send(&self, request: request::Builder, body: String) -> Result<Response<Incoming>, String> {
        let request = request.body(Full::from(body)).map_err(|error| error.to_string())?;
        let sent = self.client.request(request).await;
        sent.map_err(|error| describe_request(&error))
    }

    /// Returns the message of an error response, or its status if there is none. For 401 it says
    /// whether a key was sent and where keys are read from.
    pub(crate) async fn error_message(&self, status: StatusCode, body: Incoming) -> String {
        match (status, self.has_key()) {
            (StatusCode::UNAUTHORIZED, false) => "authentication required: no API key was sent; \
                 set --key or TRIBUTARY_KEY, or add the server's host to ~/.netrc"
                .to_owned(),
            (StatusCode::UNAUTHORIZED, true) => "authentication required: an API key was sent and the server \
                 rejected it; check --key, TRIBUTARY_KEY and the entry for the server's host in ~/.netrc"
                .to_owned(),
            _ => error_message(status, body).await,
        }
    }

    /// Returns the error of a failed connection.
    pub(crate) fn unreachable(&self, cause: &str) -> anyhow::Error {
        anyhow::anyhow!(
            "cannot reach {}: {cause}; start a server with `tributary demo` or `tributary up`, or set another URL with --server",
            without_credentials(&self.url)
        )
    }
}

/// Encodes a text as a path segment or a query value.
pub(crate) fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// Builds a client that trusts the system's certificate authorities (`SSL_CERT_FILE` overrides
/// them). They are read for https only.
fn client(uri: &Uri) -> anyhow::Result<Client<HttpsConnector<HttpConnector>, Full<Bytes>>> {
    let config = rustls::ClientConfig::builder();
    let config = if uri.scheme_str() == Some("https") {
        let roots = config.with_native_roots().context(
            "no trusted certificate authorities found; install ca-certificates, or set SSL_CERT_FILE to a PEM file",
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

/// Returns the message of an error response, or its status if there is none.
pub(crate) async fn error_message(status: StatusCode, body: Incoming) -> String {
    let body = Limited::new(body, MAX_ERROR_BYTES)
        .collect()
        .await
        .map(|body| body.to_bytes())
        .unwrap_or_default();
    let errors: Option<serde_json::Value> = serde_json::from_slice(&body).ok();
    let message = errors
        .as_ref()
        .and_then(|errors| errors["errors"][""][0].as_str())
        .map(str::to_owned);
    message.unwrap_or_else(|| format!("the server returned {status}"))
}

/// The remedy for a server's certificate of an unknown authority.
const TRUST: &str = "set SSL_CERT_FILE to the PEM file of its certificate authority";

/// Returns the cause of a failed request in words: that of TLS, or else the innermost one.
fn describe_request(error: &(dyn Error + 'static)) -> String {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let of_io = error.downcast_ref::<io::Error>().and_then(causes::tls::of_io);
        if let Some(error) = of_io.or_else(|| error.downcast_ref()) {
            return causes::tls::describe(error, TRUST);
        }
        cause = error.source();
    }
    causes::innermost(error)
}
