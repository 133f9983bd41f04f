//! Serves connections: HTTP/1.1 in plain, or within TLS HTTP/1.1 and HTTP/2, until told to stop.

use std::{
    convert::Infallible,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use axum::{
    body::Body,
    extract::{ConnectInfo, Request},
    response::Response,
    serve::Listener,
};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use ipnet::IpNet;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::{Service, ServiceExt};

use crate::{
    connection::{Connection, Connections, Peer},
    forwarded,
    same_site::Sites,
    tls::Tls,
};

/// The most that is read of a request's head, and that waits to be written of an answer.
const BUFFER_BYTES: usize = 64 * 1024;

/// The same of HTTP/2, in fields as they are decoded.
const HEADER_LIST_BYTES: u32 = 32 * 1024;

/// Requests at once on a connection of HTTP/2. A browser has six of HTTP/1.1.
const MAX_STREAMS: u32 = 64;

/// A client of HTTP/2 that does not answer a ping is gone.
const PING_EVERY: Duration = Duration::from_secs(30);

/// Where clients come in.
pub struct Door {
    pub(crate) listener: TcpListener,
    pub(crate) tls: Option<Tls>,
    pub(crate) proxies: Vec<IpNet>,
    pub(crate) sites: Sites,
}

impl From<TcpListener> for Door {
    /// In plain: for a loopback address, or behind a proxy that ends TLS.
    fn from(listener: TcpListener) -> Self {
        Self {
            listener,
            tls: None,
            proxies: Vec::new(),
            sites: Sites::default(),
        }
    }
}

impl Door {
    /// With TLS.
    #[must_use]
    pub fn with_tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Lets pages of these sites ask, besides the server's own.
    #[must_use]
    pub fn with_sites(mut self, sites: Sites) -> Self {
        self.sites = sites;
        self
    }

    /// Believes these proxies, and nobody else, whom a request came from (`X-Forwarded-For`).
    #[must_use]
    pub fn with_proxies(mut self, proxies: Vec<IpNet>) -> Self {
        self.proxies = proxies;
        self
    }
}

/// How clients are let in.
pub(crate) struct Way {
    pub(crate) tls: Option<Tls>,
    pub(crate) proxies: Arc<[IpNet]>,
    /// See [`Config::head_wait`](crate::Config::head_wait).
    pub(crate) head_wait: Duration,
}

/// Takes connections until `shutdown`; returns when the last of them has ended. Connections outlive the call where it is dropped, and end by themselves.
pub(crate) async fn serve<S>(mut connections: Connections, way: Way, service: S, shutdown: CancellationToken)
where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    let tasks = TaskTracker::new();
    loop {
        let (connection, peer) = tokio::select! {
            accepted = connections.accept() => accepted,
            () = shutdown.cancelled() => break,
        };
        let client = Client {
            peer,
            head_wait: way.head_wait,
            proxies: Arc::clone(&way.proxies),
            service: service.clone(),
            shutdown: shutdown.clone(),
        };
        tasks.spawn(client.serve(connection, way.tls.as_ref().map(|tls| tls.acceptor().clone())));
    }
    // Nobody new is kept waiting in the queue.
    drop(connections);
    tasks.close();
    tasks.wait().await;
}

/// One connection's.
#[derive(Clone)]
struct Client<S> {
    peer: SocketAddr,
    head_wait: Duration,
    proxies: Arc<[IpNet]>,
    service: S,
    shutdown: CancellationToken,
}

impl<S> Client<S>
where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    async fn serve(self, connection: Connection, tls: Option<TlsAcceptor>) {
        let Some(acceptor) = tls else {
            return self.http1(connection).await;
        };
        match tokio::time::timeout(self.head_wait, acceptor.accept(connection)).await {
            Ok(Ok(stream)) if stream.get_ref().1.alpn_protocol() == Some(b"h2") => self.http2(stream).await,
            Ok(Ok(stream)) => self.http1(stream).await,
            Ok(Err(error)) => tracing::debug!(peer = %self.peer, %error, "no handshake"),
            Err(_) => tracing::debug!(peer = %self.peer, "a handshake that takes too long"),
        }
    }

    async fn http1(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let shutdown = self.shutdown.clone();
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.head_wait)
            .max_buf_size(BUFFER_BYTES)
            .serve_connection(TokioIo::new(stream), service_fn(move |request| self.answer(request)))
            .with_upgrades();
        note(gracefully(pin!(connection), |connection| connection.graceful_shutdown(), &shutdown).await);
    }

    async fn http2(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let shutdown = self.shutdown.clone();
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_EVERY)
            .max_header_list_size(HEADER_LIST_BYTES)
            .max_concurrent_streams(MAX_STREAMS)
            .serve_connection(TokioIo::new(stream), service_fn(move |request| self.answer(request)));
        note(gracefully(pin!(connection), |connection| connection.graceful_shutdown(), &shutdown).await);
    }

    fn answer(&self, request: Request<Incoming>) -> impl Future<Output = Result<Response, Infallible>> + Send + use<S> {
        let mut request = request.map(Body::new);
        let client = forwarded::client(self.peer, request.headers(), &self.proxies);
        request.extensions_mut().insert(ConnectInfo(Peer(client)));
        self.service.clone().oneshot(request)
    }
}

/// Serves a connection to its end, and tells it when to begin nothing more.
async fn gracefully<C: Future>(
    mut connection: Pin<&mut C>,
    stop: impl FnOnce(Pin<&mut C>),
    shutdown: &CancellationToken,
) -> C::Output {
    tokio::select! {
        served = connection.as_mut() => return served,
        () = shutdown.cancelled() => stop(connection.as_mut()),
    }
    connection.await
}

/// A client that goes in the middle is nothing to tell an operator of.
fn note(served: hyper::Result<()>) {
    if let Err(error) = served {
        tracing::debug!(%error, "a connection ended in the middle");
    }
}
