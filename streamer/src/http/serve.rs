//! Serves connections: HTTP/1.1 without TLS, HTTP/1.1 and HTTP/2 with TLS.

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
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
    serve::Listener as _,
};
use hyper::{
    body::Incoming,
    rt::Executor,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use ipnet::IpNet;
use system::{net::TcpListener, task};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Semaphore,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::{Service, ServiceExt};

use crate::{
    http::{
        allowed_origins::AllowedOrigins,
        connection::{Connection, Connections, Peer},
        forwarded,
        tls::Tls,
    },
    tail_limits,
};

const CLOSE: HeaderValue = HeaderValue::from_static("close");

/// Limit of a request's head, and of buffered output, in HTTP/1.1.
const BUFFER_BYTES: usize = 64 * 1024;

/// Limit of a request's decoded header list in HTTP/2.
const HEADER_LIST_BYTES: u32 = 32 * 1024;

/// Concurrent requests on an HTTP/2 connection. A browser opens six HTTP/1.1 connections.
const MAX_STREAMS: u32 = 64;

/// Connections beyond the limit that are answered with 429 at a time.
const MAX_REFUSALS: usize = 64;

/// Interval of HTTP/2 pings, which detect clients that are gone.
const PING_INTERVAL: Duration = Duration::from_secs(30);

/// A listening socket with its TLS, proxy and origin settings.
pub struct Listener {
    pub(crate) tcp: TcpListener,
    pub(crate) tls: Option<Tls>,
    pub(crate) proxies: Vec<IpNet>,
    pub(crate) origins: AllowedOrigins,
}

impl From<TcpListener> for Listener {
    /// Creates a listener without TLS, for a loopback address or behind a proxy that terminates
    /// TLS.
    fn from(tcp: TcpListener) -> Self {
        Self {
            tcp,
            tls: None,
            proxies: Vec::new(),
            origins: AllowedOrigins::default(),
        }
    }
}

impl Listener {
    /// Enables TLS.
    #[must_use]
    pub fn with_tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Allows requests from pages of these origins, besides the server's own.
    #[must_use]
    pub fn with_origins(mut self, origins: AllowedOrigins) -> Self {
        self.origins = origins;
        self
    }

    /// Trusts `X-Forwarded-For` in requests from these proxies.
    #[must_use]
    pub fn with_proxies(mut self, proxies: Vec<IpNet>) -> Self {
        self.proxies = proxies;
        self
    }
}

/// Settings of each connection.
pub(crate) struct ConnectionSettings {
    pub(crate) tls: Option<Tls>,
    pub(crate) proxies: Arc<[IpNet]>,
    /// See [`Config::header_timeout`](crate::Config::header_timeout).
    pub(crate) header_timeout: Duration,
    /// See [`Config::max_connections`](crate::Config::max_connections).
    pub(crate) max_connections: usize,
}

/// Accepts connections until `shutdown`, then waits for the open ones to end.
///
/// *Cancel safety*: connections continue after the call is dropped.
pub(crate) async fn serve<S>(
    mut connections: Connections,
    settings: ConnectionSettings,
    service: S,
    shutdown: CancellationToken,
) where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    let tasks = TaskTracker::new();
    let max = settings.max_connections.min(Semaphore::MAX_PERMITS);
    let (room, refusals) = (Arc::new(Semaphore::new(max)), Arc::new(Semaphore::new(MAX_REFUSALS)));
    loop {
        let (mut connection, peer) = tokio::select! {
            accepted = connections.accept() => accepted,
            () = shutdown.cancelled() => break,
        };
        let tls = settings.tls.as_ref().map(|tls| tls.acceptor().clone());
        let service = ConnectionService {
            peer,
            header_timeout: settings.header_timeout,
            proxies: Arc::clone(&settings.proxies),
            service: service.clone(),
            shutdown: shutdown.clone(),
        };
        if let Ok(permit) = Arc::clone(&room).try_acquire_owned() {
            connection.permit = Some(permit);
            task::spawn_tracked(&tasks, service.serve(connection, tls));
        } else if let Ok(permit) = Arc::clone(&refusals).try_acquire_owned() {
            connection.permit = Some(permit);
            let timeout = settings.header_timeout;
            let refused = service.refusing(max).serve(connection, tls);
            task::spawn_tracked(
                &tasks,
                async move { drop(tokio::time::timeout(timeout, refused).await) },
            );
        }
        // Any further connection is closed at once.
    }
    // Closes the socket, so that new clients are refused instead of queued.
    drop(connections);
    tasks.close();
    tasks.wait().await;
}

/// Runs the streams of HTTP/2 connections as tasks.
#[derive(Clone)]
struct Streams;

impl<F> Executor<F> for Streams
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, stream: F) {
        task::spawn(stream);
    }
}

/// Serves the requests of one connection.
#[derive(Clone)]
struct ConnectionService<S> {
    peer: SocketAddr,
    header_timeout: Duration,
    proxies: Arc<[IpNet]>,
    service: S,
    shutdown: CancellationToken,
}

impl<S> ConnectionService<S>
where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    /// Returns a service that answers every request with 429 and closes the connection.
    fn refusing(
        self,
        max: usize,
    ) -> ConnectionService<
        impl Service<Request, Response = Response, Error = Infallible, Future: Send> + Clone + Send + Sync + use<S>,
    > {
        ConnectionService {
            peer: self.peer,
            header_timeout: self.header_timeout,
            proxies: self.proxies,
            service: tower::service_fn(move |_: Request| async move {
                let mut response = tail_limits::too_many("connections to this server", max, max).into_response();
                response.headers_mut().insert(header::CONNECTION, CLOSE);
                Ok(response)
            }),
            shutdown: self.shutdown,
        }
    }

    async fn serve(self, connection: Connection, tls: Option<TlsAcceptor>) {
        let Some(acceptor) = tls else {
            return self.http1(connection).await;
        };
        match tokio::time::timeout(self.header_timeout, acceptor.accept(connection)).await {
            Ok(Ok(stream)) if stream.get_ref().1.alpn_protocol() == Some(b"h2") => self.http2(stream).await,
            Ok(Ok(stream)) => self.http1(stream).await,
            Ok(Err(error)) => tracing::debug!(peer = %self.peer, %error, "TLS handshake failed"),
            Err(_) => tracing::debug!(peer = %self.peer, "TLS handshake timed out"),
        }
    }

    async fn http1(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let shutdown = self.shutdown.clone();
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.header_timeout)
            .max_buf_size(BUFFER_BYTES)
            .serve_connection(TokioIo::new(stream), service_fn(move |request| self.call(request)))
            .with_upgrades();
        log_error(gracefully(pin!(connection), |connection| connection.graceful_shutdown(), &shutdown).await);
    }

    async fn http2(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let shutdown = self.shutdown.clone();
        let connection = http2::Builder::new(Streams)
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_INTERVAL)
            .max_header_list_size(HEADER_LIST_BYTES)
            .max_concurrent_streams(MAX_STREAMS)
            .serve_connection(TokioIo::new(stream), service_fn(move |request| self.call(request)));
        log_error(gracefully(pin!(connection), |connection| connection.graceful_shutdown(), &shutdown).await);
    }

    fn call(&self, request: Request<Incoming>) -> impl Future<Output = Result<Response, Infallible>> + Send + use<S> {
        let mut request = request.map(Body::new);
        let client = forwarded::client(self.peer, request.headers(), &self.proxies);
        request.extensions_mut().insert(ConnectInfo(Peer(client)));
        self.service.clone().oneshot(request)
    }
}

/// Serves a connection to its end; on `shutdown`, it accepts no further requests.
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

/// Logs at debug level: clients that disconnect during a request are normal.
fn log_error(served: hyper::Result<()>) {
    if let Err(error) = served {
        tracing::debug!(%error, "connection ended with an error");
    }
}
