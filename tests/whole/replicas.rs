//! Services on Pub/Sub that are killed, or replaced as a cluster does it, while somebody reads: every line once.

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

/// Lines a second, of all containers.
const RATE: u64 = 5_000;

/// What happens to a service while the app prints.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Event {
    /// The streamer that serves is killed; a reader that comes back gets to the next.
    StreamerKilled,
    /// A new streamer comes, then the one that serves is told to stop.
    StreamerReplaced,
    /// The node's collector is told to stop, then a new one comes.
    CollectorReplaced,
}

/// How services are treated, and how often.
struct Treatment {
    /// How many streamers there are.
    replicas: usize,
    every: Duration,
    events: Vec<Event>,
}

impl Treatment {
    fn kills(replicas: usize, every: u64, times: usize) -> Self {
        Self {
            replicas,
            every: Duration::from_secs(every),
            events: vec![Event::StreamerKilled; times],
        }
    }

    /// Lines of each container: it prints a while longer than things happen.
    fn lines(&self) -> u64 {
        RATE / CONTAINERS * (self.every.as_secs() * self.events.len() as u64 + 3)
    }
}

/// How often each seq of each process was printed.
#[derive(Default)]
struct Printed(BTreeMap<String, BTreeMap<u64, u64>>);

impl Printed {
    fn take(&mut self, line: &str) {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let (Some(process), Some(seq)) = (line["process"].as_str(), line["seq"].as_u64()) else {
            panic!("nothing is missing: {line}");
        };
        let printed = self.0.entry(process.to_owned()).or_default();
        *printed.entry(seq).or_default() += 1;
    }

    fn total(&self) -> u64 {
        self.0.values().map(|seqs| seqs.len() as u64).sum()
    }
}

async fn every_seq_is_printed_once(treatment: Treatment) {
    let Some(emulator) = Emulator::start().await else {
        return;
    };
    let lines = treatment.lines();
    let cluster = Cluster::start(&writers(CONTAINERS, lines, RATE / CONTAINERS)).await;
    let mut replicas = Vec::new();
    for _ in 0..treatment.replicas {
        replicas.push(streamer(&emulator, &[]).await);
    }
    let mut collecting = collector(&cluster, &emulator).await;
    let front = Front::start().await;
    front.lead_to(replicas[0].addr);
    drop(first_tail(&replicas[0]).await);
    let server = format!("http://{}", front.addr);
    let args = ["logs", "load", "-n", "1000000", "-o", "json", "--server", &server];
    let mut logs = printing(&args, &[]);
    let (mut printed, mut next) = (Printed::default(), Instant::now() + treatment.every);
    let mut events = treatment.events.into_iter();
    while printed.total() < CONTAINERS * lines {
        let line = tokio::time::timeout_at(next, logs.line()).await.ok();
        line.iter().for_each(|line| printed.take(line));
        if Instant::now() < next {
            continue;
        }
        next += treatment.every;
        match events.next() {
            Some(Event::StreamerKilled) => {
                replicas.remove(0).kill().await;
                replicas.push(streamer(&emulator, &[]).await);
                front.lead_to(replicas[0].addr);
            }
            Some(Event::StreamerReplaced) => {
                replicas.push(streamer(&emulator, &[]).await);
                let old = replicas.remove(0);
                front.lead_to(replicas[0].addr);
                old.terminate().await;
            }
            Some(Event::CollectorReplaced) => {
                collecting.terminate().await;
                collecting = collector(&cluster, &emulator).await;
            }
            None => {}
        }
    }
    assert_eq!(events.len(), 0, "it printed for long enough");
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
async fn a_streamer_that_is_killed_while_five_thousand_lines_a_second_flow_costs_the_reader_none() {
    every_seq_is_printed_once(Treatment::kills(1, 2, 3)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_replicas_that_are_killed_in_turn_cost_the_reader_none() {
    every_seq_is_printed_once(Treatment::kills(2, 2, 3)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_of_collector_and_streamer_under_load_costs_the_reader_none() {
    let replaced = [Event::CollectorReplaced, Event::StreamerReplaced];
    every_seq_is_printed_once(Treatment {
        replicas: 1,
        every: Duration::from_secs(3),
        events: [replaced, replaced].concat(),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes two minutes and a half; the tests above are the same, for a shorter time"]
async fn a_minute_of_kills_with_one_replica_and_with_two() {
    for replicas in [1, 2] {
        every_seq_is_printed_once(Treatment::kills(replicas, 5, 12)).await;
    }
}
