//! Runs the services as processes that die and start again.

mod up;

use std::{path::Path, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::{hosts::Hosts, node::Node};
use crate::{
    machine::process::{Host, Process},
    plan::{Kill, Plan, Target},
    trace,
};

/// Time until a service that failed is started again.
const RESTART: Duration = Duration::from_secs(1);

/// The directory that services keep files in.
pub const DATA_DIR: &str = "/data";

type Start = Arc<dyn Fn(CancellationToken) -> BoxFuture<'static, anyhow::Result<()>> + Send + Sync>;

/// A change of a service's files while it is down.
pub type Tamper = Box<dyn FnOnce(&Host) + Send>;

/// All services.
pub struct Services {
    all: Vec<Service>,
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
        let up = up::start(plan, node.service());
        let start =
            |name, target, host, start| Service::start(name, target, (hosts, host), start, faults_ended.subscribe());
        let all = vec![start("up", Target::Collector, &hosts.server, up)];
        Self { all, faults_ended }
    }

    /// Starts what is down, and keeps it running.
    pub fn end_faults(&self) {
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
    start: Start,
    commands: mpsc::UnboundedReceiver<Command>,
    state: Arc<Mutex<State>>,
    faults_ended: watch::Receiver<bool>,
}

impl Runner {
    /// Starts the service again and again.
    async fn run(mut self) {
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
            while self.commands.try_recv().is_ok() {}
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
                    trace::world(format!("{} is dead", self.name));
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

    /// Does to the disk what a command wants. Returns how long the service is down.
    fn bury(&self, command: Option<Command>) -> Duration {
        let Some(command) = command else { return RESTART };
        if command.how == Kill::PowerLoss {
            self.host.disk.lose_power(Path::new(DATA_DIR));
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
