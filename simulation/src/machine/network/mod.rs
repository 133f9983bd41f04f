//! A network of TCP connections: latency, buffers of the kernels, partitions, resets.
//!
//! Bytes that were written wait in the sender's kernel until the receiver's kernel has room and has
//! acknowledged them. The end of a process closes its connections as a kernel does: with a reset if
//! it left bytes unread, orderly otherwise.

mod pipe;
mod socket;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, ErrorKind},
    net::{IpAddr, SocketAddr},
    sync::{Arc, Weak},
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use parking_lot::Mutex;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use system::simulation::{Acceptor, Socket as _};
use tokio::sync::{mpsc, watch};

use self::pipe::Pipe;
pub use self::socket::{Socket, Unread};
use super::process::Process;

/// How many connections wait to be accepted.
const BACKLOG: usize = 128;

/// How long a connection attempt to a host that does not answer takes.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(127);

/// The size of a kernel's buffers unless a listener has others.
pub const BUFFER_BYTES: usize = 128 << 10;

/// The network that connects all hosts.
pub struct Network {
    state: Mutex<State>,
    random: Mutex<StdRng>,
    /// The hosts that no packet reaches or leaves.
    unreachable: watch::Sender<BTreeSet<IpAddr>>,
}

#[derive(Default)]
struct State {
    listeners: BTreeMap<SocketAddr, Listening>,
    names: BTreeMap<String, Vec<IpAddr>>,
    connections: Vec<Weak<Connection>>,
    last_port: u16,
}

struct Listening {
    process: u64,
    receive_buffer: usize,
    queue: mpsc::Sender<Socket>,
}

/// A connection: what flows to the client, and what flows to the server.
pub(super) struct Connection {
    sides: [Side; 2],
}

struct Side {
    process: u64,
    address: SocketAddr,
    incoming: Arc<Pipe>,
}

impl Network {
    /// Creates a network without hosts.
    pub fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            random: Mutex::new(StdRng::seed_from_u64(seed)),
            unreachable: watch::Sender::default(),
        })
    }

    /// Cuts a host off, or connects it again.
    pub fn set_reachable(&self, host: IpAddr, is_reachable: bool) {
        self.unreachable.send_modify(|hosts| {
            if is_reachable {
                hosts.remove(&host);
            } else {
                hosts.insert(host);
            }
        });
    }

    /// Names a host.
    pub fn set_name(&self, name: &str, addresses: Vec<IpAddr>) {
        self.state.lock().names.insert(name.to_owned(), addresses);
    }

    /// Closes the sockets of a process that has ended.
    pub(super) fn close_all(&self, process: u64) {
        self.state
            .lock()
            .listeners
            .retain(|_, listening| listening.process != process);
        for connection in self.connections() {
            for side in 0..2 {
                if connection.sides[side].process == process {
                    connection.close(side);
                }
            }
        }
    }

    /// Returns the number of connections that one side has not closed.
    pub fn open_connections(&self) -> usize {
        self.connections().len()
    }

    fn connections(&self) -> Vec<Arc<Connection>> {
        let mut state = self.state.lock();
        let mut open = Vec::new();
        state.connections.retain(|connection| match connection.upgrade() {
            Some(connection) => {
                open.push(connection);
                true
            }
            None => false,
        });
        open
    }

    fn latency(&self) -> Duration {
        Duration::from_micros(self.random.lock().random_range(50..3000))
    }

    fn is_cut(&self, one: IpAddr, other: IpAddr) -> bool {
        let cut = self.unreachable.borrow();
        one != other && (cut.contains(&one) || cut.contains(&other))
    }

    pub(super) async fn connect(self: &Arc<Self>, process: &Arc<Process>, to: SocketAddr) -> io::Result<Socket> {
        tokio::time::sleep(self.latency()).await;
        if self.is_cut(process.host.address, to.ip()) {
            tokio::time::sleep(CONNECT_TIMEOUT).await;
            return Err(ErrorKind::TimedOut.into());
        }
        let (client, server, queue) = {
            let mut state = self.state.lock();
            let Some(listening) = state.listeners.get(&to) else {
                return Err(ErrorKind::ConnectionRefused.into());
            };
            let (server_process, queue) = (listening.process, listening.queue.clone());
            let receive_buffer = listening.receive_buffer;
            state.last_port = state.last_port.checked_add(1).unwrap_or(1).max(1024);
            let from = SocketAddr::new(process.host.address, state.last_port);
            let sides = [(process.id, from), (server_process, to)].map(|(process, address)| Side {
                process,
                address,
                incoming: Arc::new(Pipe::new(if address == to { receive_buffer } else { BUFFER_BYTES })),
            });
            let connection = Arc::new(Connection { sides });
            state.connections.push(Arc::downgrade(&connection));
            (
                Socket::new(Arc::clone(self), Arc::clone(&connection), 0),
                Socket::new(Arc::clone(self), connection, 1),
                queue,
            )
        };
        client.start_pump();
        server.start_pump();
        queue
            .try_send(server)
            .map_err(|_| io::Error::from(ErrorKind::ConnectionRefused))?;
        Ok(client)
    }

    pub(super) fn bind(self: &Arc<Self>, process: &Arc<Process>, at: SocketAddr) -> io::Result<Listener> {
        self.listen(process, at, BUFFER_BYTES)
    }

    /// Listens with a receive buffer of this size.
    ///
    /// # Errors
    /// The address is in use.
    pub fn listen(self: &Arc<Self>, process: &Process, at: SocketAddr, receive_buffer: usize) -> io::Result<Listener> {
        let (queue, connections) = mpsc::channel(BACKLOG);
        let mut state = self.state.lock();
        if state.listeners.contains_key(&at) {
            return Err(ErrorKind::AddrInUse.into());
        }
        let listening = Listening {
            process: process.id,
            receive_buffer,
            queue,
        };
        state.listeners.insert(at, listening);
        Ok(Listener {
            network: Arc::clone(self),
            address: at,
            connections: tokio::sync::Mutex::new(connections),
        })
    }

    /// # Errors
    /// The name is unknown.
    pub(super) fn lookup(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        if let Ok(address) = name.parse() {
            return Ok(vec![address]);
        }
        let addresses = self.state.lock().names.get(name).cloned();
        addresses.ok_or_else(|| io::Error::new(ErrorKind::NotFound, "no such host"))
    }
}

impl Connection {
    /// Both sides get an error; what arrived before can still be read.
    fn reset(&self) {
        for side in &self.sides {
            side.incoming.fail(ErrorKind::ConnectionReset);
        }
    }

    /// Closes one side, as a kernel does for a socket that is closed.
    fn close(&self, side: usize) {
        if self.sides[side].incoming.close_reader() {
            self.reset();
        } else {
            self.sides[1 - side].incoming.finish();
        }
    }
}

/// A listening socket.
pub struct Listener {
    network: Arc<Network>,
    address: SocketAddr,
    connections: tokio::sync::Mutex<mpsc::Receiver<Socket>>,
}

impl Listener {
    /// Waits for a connection.
    ///
    /// # Errors
    /// The process has ended.
    pub async fn next(&self) -> io::Result<Socket> {
        let next = self.connections.lock().await.recv().await;
        next.ok_or_else(|| ErrorKind::NotConnected.into())
    }
}

impl Acceptor for Listener {
    fn local_addr(&self) -> SocketAddr {
        self.address
    }

    fn accept(&self) -> BoxFuture<'_, io::Result<Box<dyn system::simulation::Socket>>> {
        async move {
            let socket = self.next().await?;
            tracing::trace!(peer = %socket.peer_addr(), "connection accepted");
            Ok(Box::new(socket) as Box<dyn system::simulation::Socket>)
        }
        .boxed()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.connections.get_mut().close();
        // A process that was started again may listen there by now.
        let mut state = self.network.state.lock();
        if state
            .listeners
            .get(&self.address)
            .is_some_and(|listening| listening.queue.is_closed())
        {
            state.listeners.remove(&self.address);
        }
    }
}
