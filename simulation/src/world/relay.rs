//! A proxy that relays TCP connections with its own buffers, as a load balancer or HAProxy does.
//!
//! It closes connections orderly whatever happened behind it: the receiver that died and the one
//! that hangs look alike to its clients.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use system::net::TcpStream;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::{machine::process::Process, trace};

/// The bytes of a direction that the proxy holds beside its kernel's buffers.
const BUFFER_BYTES: usize = 16 << 10;

/// How long a server may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the proxy reads what it can no longer pass on. A kernel resets a connection that is
/// closed with unread bytes.
const LINGER: Duration = Duration::from_secs(1);

/// A proxy.
pub struct Relay {
    process: Arc<Process>,
    servers: Vec<SocketAddr>,
    /// The index of the server that the next connection goes to.
    next: AtomicUsize,
    /// Connections without bytes in both directions end after this time.
    idle_timeout: Option<Duration>,
}

/// When bytes were relayed the last time, in milliseconds.
struct Activity(AtomicU64);

impl Relay {
    /// Starts a proxy that listens on its host and relays each connection to one of the servers.
    pub fn start(process: Arc<Process>, listen: SocketAddr, servers: Vec<SocketAddr>, idle_timeout: Option<Duration>) {
        let relay = Arc::new(Self {
            process,
            servers,
            next: AtomicUsize::new(0),
            idle_timeout,
        });
        relay.process.clone().spawn(relay.accept(listen));
    }

    async fn accept(self: Arc<Self>, listen: SocketAddr) {
        let listener = match system::net::bind(listen).await {
            Ok(listener) => listener,
            Err(error) => return trace::world(format!("{} cannot listen: {error}", self.process.name)),
        };
        while let Ok((client, _)) = listener.accept().await {
            self.process.spawn(Arc::clone(&self).relay(client));
        }
    }

    async fn relay(self: Arc<Self>, client: TcpStream) {
        let Some(server) = self.connect().await else {
            return trace::record(&self.process.name, "no server accepts a connection".to_owned());
        };
        let activity = Activity::new();
        let (mut client_reader, mut client_writer) = tokio::io::split(client);
        let (mut server_reader, mut server_writer) = tokio::io::split(server);
        let relayed = async {
            tokio::try_join!(
                copy(&mut client_reader, &mut server_writer, &activity),
                copy(&mut server_reader, &mut client_writer, &activity),
            )
        };
        let ended = tokio::select! {
            biased;
            relayed = relayed => relayed.map(drop),
            () = activity.idle(self.idle_timeout) => Err(io::ErrorKind::TimedOut.into()),
        };
        if let Err(error) = ended {
            let why = match error.kind() {
                io::ErrorKind::TimedOut => "nothing was sent for the idle timeout".to_owned(),
                _ => error.to_string(),
            };
            trace::record(&self.process.name, format!("connection closed: {why}"));
            close(&mut client_reader, &mut client_writer).await;
        }
    }

    /// Connects to a server that accepts connections.
    async fn connect(&self) -> Option<TcpStream> {
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        for offset in 0..self.servers.len() {
            let server = self.servers[(first + offset) % self.servers.len()];
            let connected = tokio::time::timeout(CONNECT_TIMEOUT, system::net::connect(server)).await;
            if let Ok(Ok(connected)) = connected {
                return Some(connected);
            }
        }
        None
    }
}

/// Copies one direction until its end.
async fn copy(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    activity: &Activity,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let read = from.read(&mut buffer).await?;
        activity.note();
        if read == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..read]).await?;
        activity.note();
    }
}

/// Closes a connection orderly.
async fn close(reader: &mut (impl AsyncRead + Unpin), writer: &mut (impl AsyncWrite + Unpin)) {
    let drained = async {
        writer.shutdown().await?;
        tokio::io::copy(reader, &mut tokio::io::sink()).await
    };
    // The client may have closed it already.
    let _ = tokio::time::timeout(LINGER, drained).await;
}

impl Activity {
    fn new() -> Self {
        let activity = Self(AtomicU64::new(0));
        activity.note();
        activity
    }

    fn note(&self) {
        let now = u64::try_from(trace::elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.store(now, Ordering::Relaxed);
    }

    /// Waits until nothing was relayed for this time.
    async fn idle(&self, timeout: Option<Duration>) {
        let Some(timeout) = timeout else {
            return std::future::pending().await;
        };
        loop {
            let until = Duration::from_millis(self.0.load(Ordering::Relaxed)) + timeout;
            let left = until.saturating_sub(trace::elapsed());
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left).await;
        }
    }
}
