//! Under any sequence of faults every line is read once or lies in a recorded gap.

use std::{collections::BTreeMap, sync::atomic::Ordering, time::Duration};

use kubesim::{FaultKind, RestartPolicy};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::support::{Harness, RunningCollector, StreamRead};

/// Time limit for a sequence of faults, with repeated retries of an unavailable API.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Steps of a sequence.
const STEPS: usize = 25;

struct Play {
    harness: Harness,
    collector: Option<RunningCollector>,
    random: StdRng,
    written: u32,
}

impl Play {
    async fn new(seed: u64) -> Self {
        let harness = Harness::new().await;
        harness.pod("p", RestartPolicy::Never).await;
        let collector = harness.collect().await;
        // What a log held before the first read cannot be known.
        harness.write("p", 0..1);
        harness.wait_for_lines(1).await;
        Self {
            collector: Some(collector),
            harness,
            random: StdRng::seed_from_u64(seed),
            written: 1,
        }
    }

    fn write(&mut self) {
        let lines = self.random.random_range(1..400);
        self.harness.write("p", self.written..self.written + lines);
        self.written += lines;
    }

    /// Causes one fault, and writes lines before and after it.
    async fn step(&mut self, rotates: bool) {
        self.write();
        let duration = Duration::from_millis(self.random.random_range(1..300));
        let cluster = &self.harness.cluster;
        match self.random.random_range(0..if rotates { 14 } else { 12 }) {
            0 => cluster.break_streams(),
            1 => cluster.end_streams(),
            2 => cluster.cause(FaultKind::ApiDown { duration }),
            3 => cluster.cause(FaultKind::KubeletDown { duration }),
            4 => cluster.cause(FaultKind::RuntimeDown { duration }),
            5 => cluster.cause(FaultKind::StallFollows { duration }),
            6 => cluster.cause(FaultKind::SlowLogs {
                duration,
                delay: Duration::from_millis(5),
            }),
            7 => cluster.cause(FaultKind::LogsForbidden { duration }),
            8 => cluster.cause(FaultKind::ExpireWatches),
            9 => {
                let is_away = self.random.random();
                self.harness.bus.unavailable.store(is_away, Ordering::SeqCst);
            }
            10 => {
                if let Some(collector) = self.collector.take() {
                    collector.kill().await;
                }
                self.write();
                self.collector = Some(self.harness.collect().await);
            }
            11 => {
                if let Some(collector) = self.collector.take() {
                    collector.stop().await;
                }
                self.collector = Some(self.harness.collect().await);
            }
            12 => cluster.cause(FaultKind::Rotate),
            _ => {
                cluster.cause(FaultKind::StrandFollows);
                cluster.cause(FaultKind::Rotate);
            }
        }
        self.write();
        tokio::time::sleep(Duration::from_millis(self.random.random_range(0..60))).await;
    }

    /// Ends the run and returns what a reader has.
    async fn finish(mut self) -> (Vec<StreamRead>, u32) {
        self.harness.bus.unavailable.store(false, Ordering::SeqCst);
        self.harness.exit("p").await;
        let streams = self
            .harness
            .wait_within(TIMEOUT, "all streams ended", |streams| {
                !streams.is_empty() && streams.iter().all(|stream| stream.ended)
            })
            .await;
        if let Some(collector) = self.collector.take() {
            collector.stop().await;
        }
        (streams, self.written)
    }
}

/// Asserts that every line was read once, or that a gap is recorded where the lines before it end.
fn assert_accounted_for(streams: &[StreamRead], written: u32, seed: u64) {
    let mut positions: BTreeMap<u32, (usize, u64)> = BTreeMap::new();
    for (index, stream) in streams.iter().enumerate() {
        assert_eq!(stream.silent_gaps, [], "seed {seed}: a gap that is not recorded");
        for (text, seq) in stream.texts.iter().zip(&stream.seqs) {
            let line: u32 = text.strip_prefix("line ").unwrap().parse().unwrap();
            let before = positions.insert(line, (index, *seq));
            assert_eq!(before, None, "seed {seed}: line {line} was read twice");
        }
    }
    assert!(positions.contains_key(&0));
    for line in 1..written {
        if positions.contains_key(&line) || !positions.contains_key(&(line - 1)) {
            continue;
        }
        // The first line of a gap.
        let (stream, seq) = positions[&(line - 1)];
        let recorded = streams[stream].recorded_gaps.iter().any(|gap| gap.0 == seq + 1);
        assert!(recorded, "seed {seed}: line {line} is missing without a gap");
    }
}

async fn play(seed: u64, rotates: bool) -> (Vec<StreamRead>, u32) {
    let mut play = Play::new(seed).await;
    for _ in 0..STEPS {
        play.step(rotates).await;
    }
    play.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_without_rotation_lose_and_repeat_nothing() {
    for seed in 1..=3 {
        let (streams, written) = play(seed, false).await;
        assert_eq!(streams.len(), 1, "seed {seed}");
        assert_eq!(streams[0].recorded_gaps, [], "seed {seed}");
        assert_accounted_for(&streams, written, seed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_with_rotations_record_every_gap_in_its_place() {
    for seed in 11..=13 {
        let (streams, written) = play(seed, true).await;
        assert_accounted_for(&streams, written, seed);
    }
}
