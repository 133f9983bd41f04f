//! Kills and rollouts of services on Pub/Sub under load: a client gets every line once.

#![allow(clippy::unwrap_used, reason = "a helper's panic fails its test")]

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

use crate::{
    cluster::{collector, streamer},
    emulator::Emulator,
    support::*,
    up::{Cluster, first_tail, writers},
};

const CONTAINERS: u64 = 5;

/// Lines per second of all containers.
const RATE: u64 = 5_000;

/// A disruption while the app prints.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Event {
    /// The active streamer is killed; clients reconnect to the next.
    StreamerKilled,
    /// A new streamer starts, then the active one is stopped.
    StreamerReplaced,
    /// The collector is stopped, then a new one starts.
    CollectorReplaced,
}

/// A sequence of disruptions.
struct Disruptions {
    /// Number of streamers.
    replicas: usize,
    every: Duration,
    events: Vec<Event>,
}

impl Disruptions {
    fn kills(replicas: usize, every: u64, times: usize) -> Self {
        Self {
            replicas,
            every: Duration::from_secs(every),
            events: vec![Event::StreamerKilled; times],
        }
    }

    /// Lines per container: it prints for three seconds longer than the disruptions last.
    fn lines(&self) -> u64 {
        RATE / CONTAINERS * (self.every.as_secs() * self.events.len() as u64 + 3)
    }
}

/// How often each sequence number of each process was printed.
#[derive(Default)]
struct Printed(BTreeMap<String, BTreeMap<u64, u64>>);

impl Printed {
    fn record(&mut self, line: &str) {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let (Some(process), Some(seq)) = (line["process"].as_str(), line["seq"].as_u64()) else {
            panic!("unexpected gap: {line}");
        };
        let printed = self.0.entry(process.to_owned()).or_default();
        *printed.entry(seq).or_default() += 1;
    }

    fn total(&self) -> u64 {
        self.0.values().map(|seqs| seqs.len() as u64).sum()
    }
}

async fn assert_every_line_once(disruptions: Disruptions) {
    let Some(emulator) = Emulator::start().await else {
        return;
    };
    let lines = disruptions.lines();
    let cluster = Cluster::start(&writers(CONTAINERS, lines, RATE / CONTAINERS)).await;
    let mut replicas = Vec::new();
    for _ in 0..disruptions.replicas {
        replicas.push(streamer(&emulator, &[]).await);
    }
    let mut collecting = collector(&cluster, &emulator).await;
    let proxy = TcpProxy::start().await;
    proxy.forward_to(replicas[0].addr);
    drop(first_tail(&replicas[0]).await);
    let server = format!("http://{}", proxy.addr);
    let args = ["logs", "load", "-n", "1000000", "-o", "json", "--server", &server];
    let mut logs = start_client(&args, &[]);
    let (mut printed, mut next) = (Printed::default(), Instant::now() + disruptions.every);
    let mut events = disruptions.events.into_iter();
    while printed.total() < CONTAINERS * lines {
        let line = tokio::time::timeout_at(next, logs.line()).await.ok();
        line.iter().for_each(|line| printed.record(line));
        if Instant::now() < next {
            continue;
        }
        next += disruptions.every;
        match events.next() {
            Some(Event::StreamerKilled) => {
                replicas.remove(0).kill().await;
                replicas.push(streamer(&emulator, &[]).await);
                proxy.forward_to(replicas[0].addr);
            }
            Some(Event::StreamerReplaced) => {
                replicas.push(streamer(&emulator, &[]).await);
                let old = replicas.remove(0);
                proxy.forward_to(replicas[0].addr);
                old.terminate().await;
            }
            Some(Event::CollectorReplaced) => {
                collecting.terminate().await;
                collecting = collector(&cluster, &emulator).await;
            }
            None => {}
        }
    }
    assert_eq!(events.len(), 0, "all disruptions happened");
    for (process, seqs) in &printed.0 {
        let numbers: Vec<u64> = seqs.keys().copied().collect();
        assert_eq!(numbers, (0..lines).collect::<Vec<_>>(), "{process}: every seq");
        let twice: Vec<_> = seqs.iter().filter(|(_, times)| **times > 1).collect();
        assert!(twice.is_empty(), "{process}: {twice:?} more than once");
    }
    logs.interrupt().await;
    collecting.terminate().await;
    for replica in replicas {
        replica.terminate().await;
    }
    cluster.stop().await;
    emulator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_of_a_streamer_at_five_thousand_lines_per_second_lose_no_line() {
    assert_every_line_once(Disruptions::kills(1, 2, 3)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_of_two_replicas_in_turn_lose_no_line() {
    assert_every_line_once(Disruptions::kills(2, 2, 3)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_of_collector_and_streamer_under_load_loses_no_line() {
    let replaced = [Event::CollectorReplaced, Event::StreamerReplaced];
    assert_every_line_once(Disruptions {
        replicas: 1,
        every: Duration::from_secs(3),
        events: [replaced, replaced].concat(),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes two and a half minutes; the tests above are shorter versions"]
async fn kills_for_a_minute_with_one_and_with_two_replicas_lose_no_line() {
    for replicas in [1, 2] {
        assert_every_line_once(Disruptions::kills(replicas, 5, 12)).await;
    }
}
