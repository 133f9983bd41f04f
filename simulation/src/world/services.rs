//! Runs the services as processes that die and start again.

mod bus_faults;
mod cluster;
mod exported;
#[path = "../../../src/service.rs"]
mod service;
mod settings;
mod up;

use std::{
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

pub use bus_faults::BusFaults;
use cluster::Cluster;
pub use exported::Exported;

use super::{
    hosts::{Hosts, SERVER_PORT},
    node::Node,
    relay::Relay,
};
use crate::{
    machine::process::{Host, Process},
    plan::{Engine, Kill, Plan, Target},
    trace,
};

/// Time between the restarts of two replicas in a rollout.
const ROLLOUT_PAUSE: Duration = Duration::from_secs(3);

/// Time until a service that failed is started again.
const RESTART: Duration = Duration::from_secs(1);

/// The directory that services keep files in.
pub const DATA_DIR: &str = "/data";

/// The id of the boot of a machine.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

type Start = Arc<dyn Fn(CancellationToken) -> BoxFuture<'static, anyhow::Result<()>> + Send + Sync>;

/// A change of a service's files while it is down.
pub type Tamper = Box<dyn FnOnce(&Host) + Send>;

/// All services.
pub struct Services {
    all: Vec<Service>,
    /// The bus, if it is a service of its own.
    bus: Option<BusFaults>,
    /// How many replicas of sinks there are.
    sinks: Arc<AtomicU32>,
    exported: Exported,
    /// Whether services that are down start at once.
    faults_ended: watch::Sender<bool>,
}

/// A service.
struct Service {
    target: Target,
    commands: mpsc::UnboundedSender<Command>,
    state: Arc<Mutex<State>>,
}

/// A command to the task that runs a service.
struct Command {
    how: Kill,
    down: Duration,
    tamper: Option<Tamper>,
}

#[derive(Default)]
struct State {
    process: Option<Arc<Process>>,
    /// Why it ended by itself the last time, and when.
    failure: Option<(Duration, String)>,
}

impl Services {
    /// Starts all services.
    pub fn start(plan: &Plan, hosts: &Hosts, node: &Node) -> Self {
        let faults_ended = watch::Sender::new(false);
        let exported = Exported::default();
        let sinks = Arc::new(AtomicU32::new(u32::try_from(hosts.sinks.len()).unwrap_or(1)));
        let start = |name: &str, target, host, start| {
            Service::start(name, target, (hosts, host), start, faults_ended.subscribe())
        };
        if plan.engine == Engine::Embedded {
            let up = up::starter(plan, node.service(), exported.clone());
            let all = vec![start("up", Target::Collector, &hosts.server, up)];
            return Self {
                all,
                bus: None,
                sinks,
                exported,
                faults_ended,
            };
        }
        let bus = BusFaults::new(plan.seed);
        let cluster = Cluster::new(
            plan,
            bus.service(),
            node.service(),
            Arc::clone(&sinks),
            exported.clone(),
        );
        let mut all = vec![start(
            "collector",
            Target::Collector,
            &hosts.server,
            cluster.collector(),
        )];
        let mut addresses = Vec::new();
        for (index, host) in hosts.streamers.iter().enumerate() {
            let listen = SocketAddr::new(host.address, SERVER_PORT);
            let name = format!("streamer-{index}");
            all.push(start(
                &name,
                Target::Streamer(index),
                host,
                cluster.streamer(index, listen),
            ));
            addresses.push(listen);
        }
        for (index, host) in (0..).zip(&hosts.sinks) {
            let name = format!("sinks-{index}");
            all.push(start(&name, Target::Sinks(index as usize), host, cluster.sinks(index)));
        }
        Relay::start(
            hosts.process("balancer", &hosts.balancer),
            hosts.server_address(),
            addresses,
            None,
        );
        Self {
            all,
            bus: Some(bus),
            sinks,
            exported,
            faults_ended,
        }
    }

    /// Returns the faults of the bus, if it is a service of its own.
    pub fn bus(&self) -> Option<&BusFaults> {
        self.bus.as_ref()
    }

    /// Returns the metrics of all services.
    pub fn exported(&self) -> &Exported {
        &self.exported
    }

    /// Restarts sinks with another number of replicas, one process after the other.
    pub fn scale(&self, replicas: u32) {
        self.sinks.store(replicas, Ordering::Relaxed);
        let sinks = self
            .all
            .iter()
            .filter(|service| matches!(service.target, Target::Sinks(_)));
        for (turn, service) in (0..).zip(sinks) {
            let commands = service.commands.clone();
            tokio::spawn(async move {
                tokio::time::sleep(ROLLOUT_PAUSE * turn).await;
                let _ = commands.send(Command {
                    how: Kill::Gracefully,
                    down: Duration::from_millis(100),
                    tamper: None,
                });
            });
        }
    }

    /// Starts what is down, and keeps it running.
    pub fn end_faults(&self) {
        if let Some(bus) = &self.bus {
            bus.end();
        }
        self.faults_ended.send_replace(true);
    }

    /// Kills or stops a service, and starts it again.
    pub fn kill(&self, target: Target, how: Kill, down: Duration, tamper: Option<Tamper>) {
        let service = self.all.iter().find(|service| service.target == target);
        // On the embedded bus all services are one process.
        if let Some(service) = service.or(self.all.first()) {
            let _ = service.commands.send(Command { how, down, tamper });
        }
    }

    /// Returns the services that are down, or ended by themselves since a time.
    pub fn failures(&self, since: Duration) -> Vec<String> {
        let failure = |service: &Service| {
            let state = service.state.lock();
            let recent = state.failure.as_ref().filter(|(at, _)| *at >= since);
            let down = state.process.is_none().then(|| "it does not run".to_owned());
            recent.map(|(_, why)| why.clone()).or(down)
        };
        self.all.iter().filter_map(failure).collect()
    }
}

impl Service {
    fn start(
        name: &str,
        target: Target,
        (hosts, host): (&Hosts, &Host),
        start: Start,
        faults_ended: watch::Receiver<bool>,
    ) -> Self {
        let (commands, receiver) = mpsc::unbounded_channel();
        let state = Arc::new(Mutex::new(State::default()));
        let runner = Runner {
            name: name.to_owned(),
            hosts: hosts.clone(),
            host: host.clone(),
            owns_disk: target == Target::Collector,
            start,
            commands: receiver,
            state: Arc::clone(&state),
            faults_ended,
        };
        tokio::spawn(runner.run());
        Self {
            target,
            commands,
            state,
        }
    }
}

struct Runner {
    name: String,
    hosts: Hosts,
    host: Host,
    owns_disk: bool,
    start: Start,
    commands: mpsc::UnboundedReceiver<Command>,
    state: Arc<Mutex<State>>,
    faults_ended: watch::Receiver<bool>,
}

impl Runner {
    /// Starts the service again and again.
    async fn run(mut self) {
        if self.owns_disk {
            self.boot();
        }
        loop {
            let down = self.run_once().await;
            self.state.lock().process = None;
            // At the end of the faults, or when the world is gone.
            let ended = self.faults_ended.wait_for(|ended| *ended);
            let _ = tokio::time::timeout(down, ended).await;
            if *self.faults_ended.borrow() {
                tokio::time::sleep(down.min(RESTART)).await;
            }
            // A process that does not run cannot be killed.
            while self.commands.try_recv().is_ok() {
                trace::world(format!("{} does not run: a kill has no effect", self.name));
            }
        }
    }

    /// Runs one process to its end. Returns how long the service is down.
    async fn run_once(&mut self) -> Duration {
        let process = self.hosts.process(&self.name, &self.host);
        trace::world(format!("{} starts as process {}", self.name, process.id));
        self.state.lock().process = Some(Arc::clone(&process));
        let stop = CancellationToken::new();
        let mut running = process.spawn((self.start)(stop.clone()));
        let mut pending: Option<Command> = None;
        loop {
            tokio::select! {
                biased;
                () = process.died() => {
                    process.kill();
                    running.abort();
                    let command = pending.take();
                    trace::world(format!("{} was killed", self.name));
                    return self.bury(command);
                }
                ended = &mut running => {
                    let why = match ended {
                        Ok(Ok(())) => None,
                        Ok(Err(error)) => Some(format!("{} failed: {error:#}", self.name)),
                        Err(error) => Some(format!("{} failed: {error}", self.name)),
                    };
                    process.kill();
                    trace::world(why.clone().unwrap_or_else(|| format!("{} has stopped", self.name)));
                    let was_stopped = pending.is_some() && why.is_none();
                    if !was_stopped {
                        let why = why.unwrap_or_else(|| format!("{} ended by itself", self.name));
                        self.state.lock().failure = Some((trace::elapsed(), why));
                    }
                    let down = self.bury(pending.take());
                    return down.max(RESTART);
                }
                Some(command) = self.commands.recv(), if pending.is_none() => {
                    match command.how {
                        Kill::Now | Kill::PowerLoss => process.kill(),
                        Kill::AfterPolls(polls) => process.kill_after_polls(polls),
                        Kill::AfterSteps(steps) => process.kill_after_steps(steps),
                        Kill::Gracefully => stop.cancel(),
                    }
                    pending = Some(command);
                }
            }
        }
    }

    /// The machine starts: the kernel shows an id that no other boot has.
    fn boot(&self) {
        let id = format!("boot at {:?}\n", trace::elapsed());
        if let Err(error) = self.host.disk.provide(Path::new(BOOT_ID), &id) {
            trace::world(format!("no boot id: {error}"));
        }
    }

    /// Does to the disk what a command wants. Returns how long the service is down.
    fn bury(&self, command: Option<Command>) -> Duration {
        let Some(command) = command else { return RESTART };
        // The disk that replicas share has a machine of its own.
        if command.how == Kill::PowerLoss && self.owns_disk {
            self.host.disk.lose_power(Path::new(DATA_DIR));
            self.boot();
        }
        if let Some(tamper) = command.tamper {
            tamper(&self.host);
        }
        command.down
    }
}

/// Returns the files of a host that services keep.
pub fn state_files(host: &Host) -> Vec<(std::path::PathBuf, u64)> {
    host.disk.files(Path::new(DATA_DIR))
}
