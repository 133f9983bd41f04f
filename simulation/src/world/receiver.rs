//! The receiver of the drain: a syslog server over TCP that hangs, goes away and comes back.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::io::AsyncReadExt;

use super::{
    hosts::{Hosts, RECEIVER_PORT},
    later,
    relay::Relay,
};
use crate::{
    check::{
        BusLimits,
        drain::{self, DrainLog},
    },
    machine::{
        network::{Listener, Socket, Unread},
        process::Process,
    },
    plan::{Action, Fault, Plan},
    trace,
};

/// How long a proxy may go on taking lines after a fault of its receiver has ended.
const PROXY_DELAY: Duration = Duration::from_secs(5);

/// The time after which a line that the receiver's kernel has taken is confirmed, although the
/// receiver has not read it: the documented limit of syslog over TCP.
const CONFIRMING_TIME: Duration = Duration::from_secs(30);

/// How long a receiver that is not killed reads on before it ends.
const LAST_READS: Duration = Duration::from_millis(10);

/// The receiver. Clones share it.
#[derive(Clone)]
pub struct Receiver {
    hosts: Hosts,
    log: Arc<Mutex<DrainLog>>,
    hangs: Arc<AtomicBool>,
    process: Arc<Mutex<Arc<Process>>>,
    /// The connections of the process.
    connections: Arc<Mutex<Vec<Connection>>>,
    /// The size of its kernel's buffer.
    buffer: usize,
}

/// A connection, as seen from outside the process.
#[derive(Clone)]
struct Connection {
    unread: Unread,
    /// The beginning of a message whose end was not read yet.
    partial: Arc<Mutex<Vec<u8>>>,
}

impl Receiver {
    /// Starts it.
    pub fn start(hosts: &Hosts, plan: &Plan) -> Self {
        let mut random = StdRng::seed_from_u64(plan.seed ^ 0x7265_6376);
        let receiver = Self {
            hosts: hosts.clone(),
            log: Arc::new(Mutex::new(DrainLog {
                name: "drain".to_owned(),
                since: Duration::MAX,
                bus: BusLimits::of(plan),
                lost_until: lost_until(plan),
                ..DrainLog::default()
            })),
            hangs: Arc::default(),
            process: Arc::new(Mutex::new(hosts.process("receiver", &hosts.receiver))),
            connections: Arc::default(),
            buffer: 1 << random.random_range(15..27),
        };
        receiver.listen();
        if plan.has_proxy {
            let idle_timeout = Duration::from_secs(random.random_range(20..90));
            Relay::start(
                hosts.process("proxy", &hosts.proxy),
                SocketAddr::new(hosts.proxy.address, RECEIVER_PORT),
                vec![SocketAddr::new(hosts.receiver.address, RECEIVER_PORT)],
                Some(idle_timeout),
            );
        }
        receiver
    }

    /// Returns what it got.
    pub fn log(&self) -> Arc<Mutex<DrainLog>> {
        Arc::clone(&self.log)
    }

    /// Reads nothing for a time.
    pub fn hang(&self, time: Duration) {
        let hangs = Arc::clone(&self.hangs);
        hangs.store(true, Ordering::Relaxed);
        later(time, move || {
            hangs.store(false, Ordering::Relaxed);
            trace::world("the receiver reads again");
        });
    }

    /// Ends the process, at once or after a moment in which it reads on, and starts another one
    /// later.
    pub fn restart(&self, is_killed: bool, down: Duration) {
        let old = Arc::clone(&*self.process.lock());
        let this = self.clone();
        tokio::spawn(async move {
            if !is_killed {
                tokio::time::sleep(LAST_READS).await;
            }
            this.lose_unread();
            old.kill();
            tokio::time::sleep(down).await;
            this.start_again();
        });
    }

    /// Ends its faults.
    pub fn recover(&self) {
        self.hangs.store(false, Ordering::Relaxed);
    }

    /// Records which confirmed messages are lost with the process.
    fn lose_unread(&self) {
        for connection in self.connections.lock().drain(..) {
            let mut bytes = std::mem::take(&mut *connection.partial.lock());
            bytes.extend(connection.unread.since(CONFIRMING_TIME));
            if let Ok(messages) = drain::split_messages(&mut bytes) {
                self.log.lock().confirmed_unread.extend(messages);
            }
        }
    }

    fn start_again(&self) {
        let mut process = self.process.lock();
        if process.is_dead() {
            *process = self.hosts.process("receiver", &self.hosts.receiver);
            drop(process);
            self.listen();
            trace::world("the receiver starts again");
        }
    }

    fn listen(&self) {
        let process = Arc::clone(&*self.process.lock());
        let at = SocketAddr::new(process.host.address, RECEIVER_PORT);
        let network = Arc::clone(&process.host.network);
        match network.listen(&process, at, self.buffer) {
            Ok(listener) => {
                process.spawn(accept(Arc::clone(&process), listener, self.clone()));
            }
            Err(error) => trace::world(format!("the receiver cannot listen: {error}")),
        }
    }
}

/// Returns until when lines can be lost silently: a proxy confirms what its receiver never reads.
fn lost_until(plan: &Plan) -> Duration {
    if !plan.has_proxy {
        return Duration::ZERO;
    }
    let ends = plan.steps.iter().filter_map(|step| match step.action {
        Action::Fault(
            Fault::ReceiverHangs(time)
            | Fault::ReceiverDown(time)
            | Fault::ReceiverKilled(time)
            | Fault::Partition(time),
        ) => Some(step.at + time + PROXY_DELAY),
        _ => None,
    });
    ends.max().unwrap_or_default()
}

async fn accept(process: Arc<Process>, listener: Listener, receiver: Receiver) {
    while let Ok(socket) = listener.next().await {
        let connection = Connection {
            unread: socket.unread(),
            partial: Arc::default(),
        };
        receiver.connections.lock().push(connection.clone());
        process.spawn(receiver.clone().read(socket, connection));
    }
}

impl Receiver {
    async fn read(self, mut socket: Socket, connection: Connection) {
        let mut chunk = vec![0; 32 << 10];
        loop {
            while self.hangs.load(Ordering::Relaxed) {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            let mut partial = match socket.read(&mut chunk).await {
                Ok(0) => return,
                Err(error) => return trace::record("receiver", format!("the connection broke: {error}")),
                Ok(read) => {
                    let mut partial = connection.partial.lock();
                    partial.extend_from_slice(&chunk[..read]);
                    partial
                }
            };
            match drain::split_messages(&mut partial) {
                Ok(messages) => self.log.lock().messages.extend(messages),
                Err(error) => return trace::record("receiver", format!("not a syslog message: {error}")),
            }
        }
    }
}
