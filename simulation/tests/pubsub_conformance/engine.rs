//! The engine on the model, and the machine that it runs on.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};

use bus::{Bus, PubSub, PubSubSettings};
use rand::{SeedableRng, rngs::StdRng};
use simulation::{
    machine::{
        clock::WallClock,
        disk::Disk,
        network::Network,
        process::{Host, Process},
    },
    pubsub::{Faults, PubSubModel},
};
use system::clock::steady;

/// Timeout of every wait, in virtual time.
pub const BOUND: Duration = Duration::from_secs(600);

/// The wall clocks' time at the start.
const WALL: Duration = Duration::from_secs(1_800_000_000);

/// The engine under test.
pub struct Engine {
    pub bus: Arc<dyn Bus>,
    pub model: PubSubModel,
    settings: PubSubSettings,
}

impl Engine {
    /// Opens an engine with two projects.
    pub fn new(seed: u64, faults: Faults) -> Self {
        let model = PubSubModel::new(StdRng::seed_from_u64(seed), WALL);
        model.set_faults(faults);
        Self::on(model, "replica-1")
    }

    /// Opens an engine on a model.
    pub fn on(model: PubSubModel, replica: &str) -> Self {
        let settings = PubSubSettings {
            emulator: None,
            check_interval: Duration::from_secs(10),
            ack_deadline: Duration::from_secs(10),
            ..PubSubSettings::for_projects(vec!["project-a".to_owned(), "project-b".to_owned()], replica)
        };
        Self {
            bus: open(&settings, &model),
            model,
            settings,
        }
    }

    /// Closes and reopens the engine.
    pub async fn restart(self) -> Self {
        self.bus.close().await;
        Self {
            bus: open(&self.settings, &self.model),
            ..self
        }
    }
}

fn open(settings: &PubSubSettings, model: &PubSubModel) -> Arc<dyn Bus> {
    Arc::new(PubSub::with_service(settings.clone(), model.service()).unwrap())
}

/// Faults that the cases allow: deliveries are late by less than the reorder window, and no request
/// fails.
pub fn delivery_faults() -> Faults {
    Faults {
        lost_nack: 0.0,
        stream_stall: Duration::from_millis(300),
        ..Faults::delivery()
    }
}

/// Runs a future on a machine.
pub async fn run<F: Future>(seed: u64, future: F) -> F::Output {
    let host = Host {
        address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        clock: Arc::new(WallClock::new(steady(), WALL)),
        disk: Disk::new(seed),
        network: Network::new(seed),
    };
    Process::new("reader", 1, host, seed).run(future).await
}
