//! Streamers on Pub/Sub that are killed while somebody reads: every line once, by one replica or by two in turn.

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

/// How the replicas are treated while the app prints.
#[derive(Clone, Copy)]
struct Kills {
    /// How many there are; a reader that comes back gets to the next.
    replicas: usize,
    every: Duration,
    times: u64,
}

impl Kills {
    /// Lines of each container: it prints a while longer than there are kills.
    fn lines(self) -> u64 {
        RATE / CONTAINERS * (self.every.as_secs() * self.times + 3)
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

async fn every_seq_is_printed_once(kills: Kills) {
    let Some(emulator) = Emulator::start().await else {
        return;
    };
    let lines = kills.lines();
    let cluster = Cluster::start(&writers(CONTAINERS, lines, RATE / CONTAINERS)).await;
    let mut replicas = Vec::new();
    for _ in 0..kills.replicas {
        replicas.push(streamer(&emulator, &[]).await);
    }
    let collector = collector(&cluster, &emulator).await;
    let front = Front::start().await;
    front.lead_to(replicas[0].addr);
    drop(first_tail(&replicas[0]).await);
    let server = format!("http://{}", front.addr);
    let args = ["logs", "load", "-n", "1000000", "-o", "json", "--server", &server];
    let mut logs = printing(&args, &[]);
    let (mut printed, mut killed, mut next) = (Printed::default(), 0, Instant::now() + kills.every);
    while printed.total() < CONTAINERS * lines {
        let line = tokio::time::timeout_at(next, logs.line()).await.ok();
        line.iter().for_each(|line| printed.take(line));
        if Instant::now() < next {
            continue;
        }
        next += kills.every;
        if killed < kills.times {
            killed += 1;
            replicas.remove(0).kill().await;
            replicas.push(streamer(&emulator, &[]).await);
            front.lead_to(replicas[0].addr);
        }
    }
    assert_eq!(killed, kills.times, "it printed for long enough");
    for (process, seqs) in &printed.0 {
        let numbers: Vec<u64> = seqs.keys().copied().collect();
        assert_eq!(numbers, (0..lines).collect::<Vec<_>>(), "{process}: every seq");
        let twice: Vec<_> = seqs.iter().filter(|(_, times)| **times > 1).collect();
        assert!(twice.is_empty(), "{process}: {twice:?} more than once");
    }
    logs.interrupt().await;
    collector.terminate().await;
    for replica in replicas {
        replica.terminate().await;
    }
    cluster.stop().await;
    emulator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_streamer_that_is_killed_while_five_thousand_lines_a_second_flow_costs_the_reader_none() {
    let every = Duration::from_secs(2);
    every_seq_is_printed_once(Kills {
        replicas: 1,
        every,
        times: 3,
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_replicas_that_are_killed_in_turn_cost_the_reader_none() {
    let every = Duration::from_secs(2);
    every_seq_is_printed_once(Kills {
        replicas: 2,
        every,
        times: 3,
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes two minutes and a half; the tests above are the same, for a shorter time"]
async fn a_minute_of_kills_with_one_replica_and_with_two() {
    let every = Duration::from_secs(5);
    for replicas in [1, 2] {
        every_seq_is_printed_once(Kills {
            replicas,
            every,
            times: 12,
        })
        .await;
    }
}
