//! The hosts, their clocks and disks, and the network between them.

use std::{
    net::{IpAddr, Ipv4Addr},
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
    plan::Source,
};

/// The true time at the start: half a minute before winter time begins in Berlin.
const EPOCH: Duration = Duration::from_secs(1_792_889_970);

/// All hosts.
#[derive(Clone)]
pub struct Hosts {
    /// The node: kubelet, containers, and the collector where it reads files.
    pub node: Host,
    /// Where streamer, sinks and the embedded bus run.
    pub server: Host,
    /// Where clients run.
    pub client: Host,
    /// Where the receiver of the drain runs.
    pub receiver: Host,
    seed: u64,
    processes: Arc<AtomicU64>,
}

impl Hosts {
    /// Creates the hosts.
    pub fn new(seed: u64, source: Source) -> Self {
        let start = system::clock::steady();
        let network = Network::new(seed ^ 0x6e65_7477);
        let host = |last: u8| Host {
            address: IpAddr::V4(Ipv4Addr::new(10, 0, 0, last)),
            clock: Arc::new(WallClock::new(start, EPOCH)),
            disk: Disk::new(seed ^ u64::from(last)),
            network: Arc::clone(&network),
        };
        let node = host(1);
        let server = match source {
            // The log files are on the node's disk.
            Source::Files => Host {
                address: host(2).address,
                ..node.clone()
            },
            Source::Api => host(2),
        };
        let receiver = host(4);
        network.set_name("logs.example", vec![receiver.address]);
        Self {
            node,
            server,
            client: host(3),
            receiver,
            seed,
            processes: Arc::default(),
        }
    }

    /// Creates a process on a host.
    pub fn process(&self, name: &str, host: &Host) -> Arc<Process> {
        let id = self.processes.fetch_add(1, Ordering::Relaxed) + 1;
        Process::new(name, id, host.clone(), self.seed)
    }
}
