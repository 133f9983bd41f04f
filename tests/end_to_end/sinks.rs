//! Replicas of `tributary sinks` on Pub/Sub, scaled down and up under load.

#![allow(clippy::unwrap_used, reason = "a helper's panic fails its test")]

use std::time::Duration;

use tokio::{net::TcpListener, sync::mpsc};

use crate::{
    cluster::{collector, streamer},
    drains::{Received, receive, succeeds},
    emulator::Emulator,
    support::*,
    up::{Cluster, first_tail, writers},
};

/// The app prints for half a minute while replicas start and stop.
const LINES: u64 = 6_000;
const RATE: u64 = 200;

/// The emulator redelivers the messages of an ended subscriber late.
const WAIT: Duration = Duration::from_secs(400);

const DRAINS: usize = 4;

/// Waits for this many lines.
async fn wait_for_lines(log: &mut ResponseLines, lines: u64) {
    for _ in 0..lines {
        log.line().await.expect("more lines");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes four minutes: the emulator redelivers late"]
async fn scaling_from_three_replicas_to_two_and_back_loses_no_line() {
    let Some(emulator) = Emulator::start().await else {
        return;
    };
    let scenario = writers(1, LINES, RATE).replace("name = \"writer\"", "name = \"writer\"\nstart_after = \"3s\"");
    let cluster = Cluster::start(&scenario).await;
    let registry = format!("file:{}", cluster.dir.path().join("registry.json").display());
    let flags = ["--registry", &registry, "--allow-address", "127.0.0.0/8"];
    let streamer = streamer(&emulator, &flags).await;
    let mut receivers = Vec::new();
    for _ in 0..DRAINS {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = format!("syslog+tcp://{}?framing=lf", listener.local_addr().unwrap());
        succeeds(&streamer, &["add", "load", &to]).await;
        let (lines, received) = mpsc::channel(10_000);
        receivers.push((received, tokio::spawn(receive(listener, lines))));
    }
    let collector = collector(&cluster, &emulator).await;
    let start = async |index: usize, count: usize| {
        let (replica, name) = (format!("{index}/{count}"), format!("sinks-{index}"));
        let args = [
            "sinks",
            "--bus",
            "pubsub:whole",
            "--admin-listen",
            "127.0.0.1:0",
            "--replica",
            &replica,
            "--replica-name",
            &name,
        ];
        Tributary::start(
            &[&args, &flags[..]].concat(),
            &[("PUBSUB_EMULATOR_HOST", emulator.host())],
        )
        .await
    };
    let mut reading = Vec::new();
    for (mut lines, _) in receivers {
        reading.push(tokio::spawn(async move {
            // The emulator redelivers late, so lines may arrive out of order.
            let mut all = Received::default();
            all.unordered = true;
            while all.count < LINES {
                all.record(&lines.recv().await.unwrap());
            }
            all
        }));
    }
    let mut three = vec![start(0, 3).await, start(1, 3).await, start(2, 3).await];
    let mut log = first_tail(&streamer).await;
    wait_for_lines(&mut log, LINES / 4).await;
    // A StatefulSet scales down: the last replica stops, then the others restart.
    three.pop().unwrap().terminate().await;
    let mut two = Vec::new();
    for (index, service) in three.into_iter().enumerate() {
        service.terminate().await;
        two.push(start(index, 2).await);
    }
    wait_for_lines(&mut log, LINES / 4).await;
    let mut again = vec![start(2, 3).await];
    for (index, service) in two.into_iter().enumerate() {
        service.terminate().await;
        again.push(start(index, 3).await);
    }
    for reader in reading {
        let all = tokio::time::timeout(WAIT, reader)
            .await
            .expect("every line in time")
            .unwrap();
        assert_eq!(all.count, LINES);
    }
    drop(log);
    for service in again {
        service.terminate().await;
    }
    streamer.terminate().await;
    collector.terminate().await;
    cluster.stop().await;
    emulator.stop().await;
}
