//! Replicas on Google's Pub/Sub emulator: three become two, and three again, under load; every line is delivered, and no gap is told that is none.

#![allow(clippy::unwrap_used, reason = "a helper's panic fails its test")]

#[path = "../../tests/support/emulator.rs"]
mod emulator;
mod support;

use std::{path::Path, sync::Arc, time::Duration};

use bus::{Bus, PubSub, PubSubSettings};
use emulator::Emulator;
use registry::{Drain, DrainUrl, FileRegistry, Registry};
use sinks::{Config, Metrics};
use support::{receiver::Receiver, *};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// One replica, with a bus and a registry of its own, as in a process of its own.
struct Process {
    shutdown: CancellationToken,
    running: JoinHandle<Result<(), sinks::SinksError>>,
    bus: Arc<PubSub>,
}

async fn bus(emulator: &Emulator, name: &str) -> Arc<PubSub> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let settings = PubSubSettings {
        emulator: Some(emulator.host().to_owned()),
        ack_deadline: sinks::ACK_DEADLINE,
        ..PubSubSettings::new("replicas", name)
    };
    Arc::new(PubSub::open(settings).await.unwrap())
}

impl Process {
    async fn start(emulator: &Emulator, registry: &Path, index: u32, count: u32) -> Self {
        let bus = bus(emulator, &format!("sinks-{index}")).await;
        let registry = Arc::new(FileRegistry::open(registry).await.unwrap());
        let config = Config {
            replica: replica(index, count),
            holder: format!("sinks-{index}"),
            ..config()
        };
        let shutdown = CancellationToken::new();
        let run = sinks::run(
            config,
            registry,
            Arc::clone(&bus) as Arc<dyn Bus>,
            Metrics::default(),
            shutdown.clone(),
        );
        Self {
            shutdown,
            running: tokio::spawn(run),
            bus,
        }
    }

    async fn stop(self) {
        self.shutdown.cancel();
        bounded("the end", self.running).await.unwrap().unwrap();
        self.bus.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_replicas_become_two_and_three_again_and_every_line_arrives() {
    let Some(emulator) = Emulator::start().await else {
        return;
    };
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("registry.json");
    let registry = FileRegistry::open(&path).await.unwrap();
    let publisher = bus(&emulator, "publisher").await;
    let app = "shop".parse().unwrap();
    publisher.create(&app).await.unwrap();
    let mut receivers = Vec::new();
    let mut drains: Vec<Drain> = Vec::new();
    for _ in 0..4 {
        let receiver = Receiver::start().await;
        let url = DrainUrl::parse(&format!("syslog+tcp://{}", receiver.addr), &loopback()).unwrap();
        let drain = registry.add_drain("shop", &url, 10).await.unwrap();
        publisher
            .ensure_subscription(&app, &drain.subscription())
            .await
            .unwrap();
        receivers.push(receiver);
        drains.push(drain);
    }
    let count = 6000;
    let printing = {
        let (publisher, web) = (Arc::clone(&publisher), origin("web-1"));
        tokio::spawn(async move {
            // Slowly enough to go on while replicas come and go.
            let mut paced = tokio::time::interval(Duration::from_millis(20));
            for seq in (0..count).step_by(10) {
                paced.tick().await;
                let lines: Vec<String> = (seq..seq + 10).map(|n| format!("line {n}")).collect();
                publisher.publish(batch(&web, seq, &lines)).await.unwrap();
            }
        })
    };
    let start = async |index, count| Process::start(&emulator, &path, index, count).await;
    let mut three = vec![start(0, 3).await, start(1, 3).await, start(2, 3).await];
    receivers[0].until(1000).await;
    // As a StatefulSet is scaled down: the last goes, then each is started anew.
    three.pop().unwrap().stop().await;
    let mut two = Vec::new();
    for (index, process) in (0..).zip(three) {
        process.stop().await;
        two.push(start(index, 2).await);
    }
    receivers[0].until(3000).await;
    let mut again = vec![start(2, 3).await];
    for (index, process) in (0..).zip(two) {
        process.stop().await;
        again.push(start(index, 3).await);
    }
    bounded("all is printed", printing).await.unwrap();
    for receiver in &mut receivers {
        receiver.until_text(&format!("line {}", count - 1)).await;
    }
    for receiver in &receivers {
        let taken = receiver.taken();
        let told: Vec<_> = taken.iter().filter(|message| message.app_name == "tributary").collect();
        assert!(told.is_empty(), "{told:?}");
        all_there(&taken, "web-1", count);
    }
    for drain in &drains {
        assert_eq!(registry.report_of(drain.id).await.unwrap().unwrap().dropped, 0);
    }
    for process in again {
        process.stop().await;
    }
    publisher.close().await;
    emulator.stop().await;
}
