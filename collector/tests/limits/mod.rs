//! Rate limits: dropped lines keep their sequence numbers and are counted exactly, and other apps
//! are not affected.

use std::{ops::Range, sync::atomic::Ordering, time::Instant};

use bus::GapReason;
use collector::Config;
use kubesim::RestartPolicy;

use crate::support::{Harness, MetricsProbe, StreamRead};

const RATE: u64 = 50_000;
const BURST: u64 = 200_000;

fn limited(config: &mut Config) {
    (config.app_rate, config.app_burst) = (RATE, BURST);
}

fn write_wide(harness: &Harness, pod: &str, lines: Range<u32>) {
    let texts = lines.map(|n| format!("line {n} {}", "x".repeat(500)));
    harness.cluster.write_lines("app", pod, "c", texts).unwrap();
}

fn is_notice(stream: &StreamRead) -> bool {
    stream.process == "tributary"
}

/// Asserts that each of `total` lines has its own sequence number or lies in a gap; returns the
/// number of lines read.
fn assert_accounted_for(stream: &StreamRead, total: u64) -> u64 {
    let numbers: Vec<u64> = stream
        .texts
        .iter()
        .map(|text| text.split(' ').nth(1).unwrap().parse().unwrap())
        .collect();
    assert!(numbers == stream.seqs, "each line has its own sequence number");
    assert!(
        stream.recorded_gaps.iter().all(|gap| gap.2 == GapReason::Limit),
        "{:?}",
        stream.recorded_gaps
    );
    let lost: u64 = stream.recorded_gaps.iter().map(|gap| gap.1).sum();
    assert_eq!((numbers.len() as u64 + lost, &stream.silent_gaps[..]), (total, &[][..]));
    numbers.len() as u64
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rate_limited_lines_are_counted_exactly_and_the_limit_is_reported() {
    let harness = Harness::new().await;
    for pod in ["p", "q"] {
        harness.pod(pod, RestartPolicy::Never).await;
    }
    let began = Instant::now();
    let collector = harness.collect_with(limited).await;
    for first in (0..4_000).step_by(500) {
        write_wide(&harness, "p", first..first + 500);
        write_wide(&harness, "q", first..first + 500);
        tokio::task::yield_now().await;
    }
    for pod in ["p", "q"] {
        harness.exit(pod).await;
    }
    let streams = harness
        .wait_for("two ended streams and the message", |streams| {
            streams.len() == 3 && streams.iter().filter(|stream| stream.ended).count() == 2
        })
        .await;
    let elapsed = began.elapsed().as_secs_f64();
    let received: u64 = streams
        .iter()
        .filter(|stream| !is_notice(stream))
        .map(|stream| assert_accounted_for(stream, 4_000))
        .sum();
    // Both pods share one bucket; a line has 540 bytes.
    let most = (BURST as f64 + RATE as f64 * elapsed) / 540.0;
    assert!(
        received > 100 && received as f64 <= most + 1.0,
        "{received} lines read, at most {most} expected"
    );
    let notice = streams.iter().find(|stream| is_notice(stream)).unwrap();
    assert_eq!(
        notice.texts,
        [
            "Error L12 (Rate limit) -> This app exceeds its limit of 50000 bytes per second and node (burst: 200000 bytes); excess lines are dropped"
        ]
    );
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rate_limited_lines_keep_their_sequence_numbers_when_read_again() {
    let harness = Harness::new().await;
    harness.pod("p", RestartPolicy::Never).await;
    let counted = MetricsProbe::new();
    let collector = harness
        .collect_with(|config| {
            limited(config);
            config.metrics = counted.metrics.clone();
        })
        .await;
    write_wide(&harness, "p", 0..10);
    harness.wait_for_lines(10).await;
    // From now on neither lines nor gaps are accepted; after the kill they are read again with a
    // full bucket.
    harness.bus.unavailable.store(true, Ordering::SeqCst);
    write_wide(&harness, "p", 10..2_000);
    counted.wait_for("tributary_collector_lines_total", 1_000.0).await;
    collector.kill().await;
    harness.bus.unavailable.store(false, Ordering::SeqCst);
    let collector = harness.collect_with(limited).await;
    write_wide(&harness, "p", 2_000..2_010);
    harness.exit("p").await;
    let streams = harness
        .wait_for("the end of the stream", |streams| {
            streams.iter().any(|stream| stream.ended)
        })
        .await;
    let own = streams.iter().find(|stream| !is_notice(stream)).unwrap();
    assert_accounted_for(own, 2_010);
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_within_its_rate_limit_loses_nothing() {
    let harness = Harness::new().await;
    harness.pod("p", RestartPolicy::Never).await;
    let collector = harness.collect_with(limited).await;
    harness.write("p", 0..1_000);
    harness.exit("p").await;
    harness.wait_for_ended(1).await[0].assert_whole(0..1_000);
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rate_limit_gap_is_recorded_without_further_lines() {
    let harness = Harness::new().await;
    harness.pod("p", RestartPolicy::Never).await;
    let collector = harness.collect_with(limited).await;
    write_wide(&harness, "p", 0..2_000);
    let streams = harness
        .wait_for("all assert_accounted_for for", |streams| {
            let of = |stream: &StreamRead| {
                stream.seqs.len() as u64 + stream.recorded_gaps.iter().map(|gap| gap.1).sum::<u64>()
            };
            streams.iter().any(|streams| of(streams) == 2_000)
        })
        .await;
    let own = streams.iter().find(|stream| !is_notice(stream)).unwrap();
    assert!(!own.ended);
    assert_accounted_for(own, 2_000);
    collector.stop().await;
}
