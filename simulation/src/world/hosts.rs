//! The hosts, their clocks and disks, and the network between them.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::{
    machine::{
        clock::WallClock,
        disk::Disk,
        network::Network,
        process::{Host, Process},
    },
    plan::{Engine, Plan, Source},
};

/// The true time at the start: half a minute before winter time begins in Berlin.
pub const EPOCH: Duration = Duration::from_secs(1_792_889_970);

/// The port of the streamer.
pub const SERVER_PORT: u16 = 8080;

/// The port of the receiver.
pub const RECEIVER_PORT: u16 = 514;

/// How many replicas of a service there are on a bus that processes share.
pub const REPLICAS: usize = 2;

/// All hosts.
#[derive(Clone)]
pub struct Hosts {
    /// The node: kubelet, containers, and the collector where it reads files.
    pub node: Host,
    /// Where the collector runs, and on the embedded bus all services.
    pub server: Host,
    /// Where clients run.
    pub client: Host,
    /// Where the receiver of the drain runs.
    pub receiver: Host,
    /// Where the proxy in front of the receiver runs.
    pub proxy: Host,
    /// Where the load balancer in front of the streamers runs.
    pub balancer: Host,
    /// Replicas of the streamer. Their disk is the one that all replicas share.
    pub streamers: Vec<Host>,
    /// Replicas of sinks.
    pub sinks: Vec<Host>,
    seed: u64,
    processes: Arc<AtomicU64>,
}

impl Hosts {
    /// Creates the hosts.
    pub fn new(plan: &Plan) -> Self {
        let start = system::clock::steady();
        let seed = plan.seed;
        let network = Network::new(seed ^ 0x6e65_7477);
        let with_disk = |last: u8, disk| Host {
            address: IpAddr::V4(Ipv4Addr::new(10, 0, 0, last)),
            clock: Arc::new(WallClock::new(start, EPOCH)),
            disk,
            network: Arc::clone(&network),
        };
        let host = |last: u8| with_disk(last, Disk::new(seed ^ u64::from(last)));
        let node = host(1);
        let server = host(match plan.engine {
            Engine::Embedded => 2,
            Engine::PubSub => 5,
        });
        let server = match plan.source {
            // The log files are on the node's disk.
            Source::Files => Host {
                address: server.address,
                ..node.clone()
            },
            Source::Api => server,
        };
        let (receiver, proxy) = (host(4), host(6));
        let drain = if plan.has_proxy { &proxy } else { &receiver };
        network.set_name("logs.example", vec![drain.address]);
        let shared = Disk::new(seed ^ 7);
        let replicas = |first: u8| {
            let count = match plan.engine {
                Engine::Embedded => 0,
                Engine::PubSub => REPLICAS,
            };
            let last = (first..).take(count);
            last.map(|last| with_disk(last, Arc::clone(&shared))).collect()
        };
        Self {
            node,
            server,
            client: host(3),
            receiver,
            proxy,
            balancer: host(2),
            streamers: replicas(11),
            sinks: replicas(21),
            seed,
            processes: Arc::default(),
        }
    }

    /// Creates a process on a host.
    pub fn process(&self, name: &str, host: &Host) -> Arc<Process> {
        let id = self.processes.fetch_add(1, Ordering::Relaxed) + 1;
        Process::new(name, id, host.clone(), self.seed)
    }

    /// Steps the clock of one host that services run on, or the clocks of all, chosen by a number.
    pub fn step_server_clock(&self, number: usize, millis: i64) {
        // Where the collector shares the node's clock, that is a fault of the node.
        let is_of_node = !self.streamers.is_empty() && Arc::ptr_eq(&self.server.clock, &self.node.clock);
        let services: Vec<_> = std::iter::once(&self.server)
            .filter(|_| !is_of_node)
            .chain(&self.streamers)
            .chain(&self.sinks)
            .collect();
        match services.get(number % (services.len() + 1)) {
            Some(host) => host.clock.step(millis),
            None => services.iter().for_each(|host| host.clock.step(millis)),
        }
    }

    /// Returns the address that clients connect to.
    pub fn server_address(&self) -> SocketAddr {
        SocketAddr::new(self.balancer.address, SERVER_PORT)
    }
}
