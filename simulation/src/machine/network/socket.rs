//! One side of a connection.

use std::{
    io::{self, ErrorKind},
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use system::simulation;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    Connection, Network,
    pipe::{Pipe, PumpStep},
};

/// How long a kernel sends again before it gives a connection up (`TCP_USER_TIMEOUT`).
const USER_TIMEOUT: Duration = Duration::from_secs(60);

/// One side of a connection. Dropping it closes that side.
pub struct Socket {
    network: Arc<Network>,
    connection: Arc<Connection>,
    side: usize,
}

/// Shows from outside the process what is in the kernel's buffer of a socket.
#[derive(Clone)]
pub struct Unread(Arc<Pipe>);

impl Unread {
    /// Returns the bytes that have been unread for at least a time.
    pub fn since(&self, time: Duration) -> Vec<u8> {
        self.0.unread_for(time)
    }
}

impl Socket {
    pub(super) fn new(network: Arc<Network>, connection: Arc<Connection>, side: usize) -> Self {
        Self {
            network,
            connection,
            side,
        }
    }

    /// Returns a handle that shows which bytes this side leaves unread.
    pub fn unread(&self) -> Unread {
        Unread(Arc::clone(self.incoming()))
    }

    fn incoming(&self) -> &Arc<Pipe> {
        &self.connection.sides[self.side].incoming
    }

    fn outgoing(&self) -> &Arc<Pipe> {
        &self.connection.sides[1 - self.side].incoming
    }

    /// Starts the task that carries what this side sends.
    pub(super) fn start_pump(&self) {
        let (network, connection) = (Arc::clone(&self.network), Arc::clone(&self.connection));
        // It belongs to the network, not to a process.
        let side = self.side;
        simulation::enter(None, || {
            #[allow(clippy::disallowed_methods, reason = "it belongs to no machine")]
            drop(tokio::spawn(pump(network, connection, side)));
        });
    }
}

/// Carries what a side sends until nothing can follow.
async fn pump(network: Arc<Network>, connection: Arc<Connection>, side: usize) {
    let (from, to) = (
        connection.sides[side].address.ip(),
        connection.sides[1 - side].address.ip(),
    );
    let pipe = Arc::clone(&connection.sides[1 - side].incoming);
    let mut unreachable = network.unreachable.subscribe();
    loop {
        match pipe.next_step() {
            PumpStep::Done => return,
            PumpStep::Wait => pipe.changed.notified().await,
            PumpStep::Move => {
                tokio::time::sleep(network.latency()).await;
                let healed = unreachable.wait_for(|cut| from == to || !(cut.contains(&from) || cut.contains(&to)));
                let is_healed = tokio::time::timeout(USER_TIMEOUT, healed).await.is_ok();
                if !is_healed {
                    pipe.fail(ErrorKind::TimedOut);
                    connection.sides[side].incoming.fail(ErrorKind::TimedOut);
                } else if !pipe.deliver() {
                    connection.reset();
                }
            }
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.incoming().poll_read(cx, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.outgoing().poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.outgoing().finish();
        Poll::Ready(Ok(()))
    }
}

impl simulation::Socket for Socket {
    fn local_addr(&self) -> SocketAddr {
        self.connection.sides[self.side].address
    }

    fn peer_addr(&self) -> SocketAddr {
        self.connection.sides[1 - self.side].address
    }

    fn unacknowledged(&self) -> Arc<dyn Fn() -> io::Result<u64> + Send + Sync> {
        let pipe = Arc::clone(self.outgoing());
        Arc::new(move || Ok(pipe.unacknowledged()))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.connection.close(self.side);
    }
}
