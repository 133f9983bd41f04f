//! An app that prints more than it may: what is above is told, counted exactly, under its own numbers, and nobody else pays.

use std::{ops::Range, sync::atomic::Ordering, time::Instant};

use bus::GapReason;
use collector::Config;
use kubesim::RestartPolicy;

use crate::support::{Counted, Seen, Stage};

const RATE: u64 = 50_000;
const BURST: u64 = 200_000;

fn limited(config: &mut Config) {
    (config.app_rate, config.app_burst) = (RATE, BURST);
}

fn write_wide(stage: &Stage, pod: &str, lines: Range<u32>) {
    let texts = lines.map(|n| format!("line {n} {}", "x".repeat(500)));
    stage.cluster.write_lines("app", pod, "c", texts).unwrap();
}

fn is_notice(seen: &Seen) -> bool {
    seen.process == "tributary"
}

/// Every one of so many lines came under its own number, or lies in a loss; returns how many came.
fn accounted(seen: &Seen, total: u64) -> u64 {
    let numbers: Vec<u64> = seen
        .texts
        .iter()
        .map(|text| text.split(' ').nth(1).unwrap().parse().unwrap())
        .collect();
    assert!(numbers == seen.seqs, "a line's number is its own");
    assert!(
        seen.losses.iter().all(|loss| loss.2 == GapReason::Limit),
        "{:?}",
        seen.losses
    );
    let lost: u64 = seen.losses.iter().map(|loss| loss.1).sum();
    assert_eq!((numbers.len() as u64 + lost, &seen.gaps[..]), (total, &[][..]));
    numbers.len() as u64
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_app_prints_above_its_limit_is_told_exactly_and_so_is_the_limit() {
    let stage = Stage::new().await;
    for pod in ["p", "q"] {
        stage.pod(pod, RestartPolicy::Never).await;
    }
    let began = Instant::now();
    let collector = stage.collect_with(limited).await;
    for first in (0..4_000).step_by(500) {
        write_wide(&stage, "p", first..first + 500);
        write_wide(&stage, "q", first..first + 500);
        tokio::task::yield_now().await;
    }
    for pod in ["p", "q"] {
        stage.exit(pod).await;
    }
    let seen = stage
        .until("both ended, and the limit told", |seen| {
            seen.len() == 3 && seen.iter().filter(|seen| seen.ended).count() == 2
        })
        .await;
    let elapsed = began.elapsed().as_secs_f64();
    let came: u64 = seen
        .iter()
        .filter(|seen| !is_notice(seen))
        .map(|seen| accounted(seen, 4_000))
        .sum();
    // One bucket for both; a line is 540 bytes.
    let most = (BURST as f64 + RATE as f64 * elapsed) / 540.0;
    assert!(came > 100 && came as f64 <= most + 1.0, "{came} came, at most {most}");
    let notice = seen.iter().find(|seen| is_notice(seen)).unwrap();
    assert_eq!(
        notice.texts,
        [
            "Error L12 (Rate limit) -> This app prints faster than its limit of 50000 bytes a second on a node, 200000 at once: what is above is dropped"
        ]
    );
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_that_the_limit_drops_have_their_numbers_also_when_they_are_read_again() {
    let stage = Stage::new().await;
    stage.pod("p", RestartPolicy::Never).await;
    let counted = Counted::new();
    let collector = stage
        .collect_with(|config| {
            limited(config);
            config.metrics = counted.metrics.clone();
        })
        .await;
    write_wide(&stage, "p", 0..10);
    stage.until_lines(10).await;
    // What is read from now on is not accepted, nor are the losses: after the kill it is read again, with a full bucket.
    stage.bus.away.store(true, Ordering::SeqCst);
    write_wide(&stage, "p", 10..2_000);
    counted.until("tributary_collector_lines_total", 1_000.0).await;
    collector.kill().await;
    stage.bus.away.store(false, Ordering::SeqCst);
    let collector = stage.collect_with(limited).await;
    write_wide(&stage, "p", 2_000..2_010);
    stage.exit("p").await;
    let seen = stage.until("ended", |seen| seen.iter().any(|seen| seen.ended)).await;
    let own = seen.iter().find(|seen| !is_notice(seen)).unwrap();
    accounted(own, 2_010);
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_that_keeps_to_its_limit_loses_nothing() {
    let stage = Stage::new().await;
    stage.pod("p", RestartPolicy::Never).await;
    let collector = stage.collect_with(limited).await;
    stage.write("p", 0..1_000);
    stage.exit("p").await;
    stage.until_ended(1).await[0].assert_whole(0..1_000);
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_dropped_is_told_though_no_line_follows() {
    let stage = Stage::new().await;
    stage.pod("p", RestartPolicy::Never).await;
    let collector = stage.collect_with(limited).await;
    write_wide(&stage, "p", 0..2_000);
    let seen = stage
        .until("all accounted for", |seen| {
            let of = |seen: &Seen| seen.seqs.len() as u64 + seen.losses.iter().map(|loss| loss.1).sum::<u64>();
            seen.iter().any(|seen| of(seen) == 2_000)
        })
        .await;
    let own = seen.iter().find(|seen| !is_notice(seen)).unwrap();
    assert!(!own.ended);
    accounted(own, 2_000);
    collector.stop().await;
}
