//! Files that the node rotates away: what cannot be had is told, in its place, once, and nothing else is.

use std::{sync::atomic::Ordering, time::Duration};

use bus::GapReason;
use kubesim::{FaultKind, RestartPolicy, Scenario};

use crate::support::{Counted, Seen, Stage};

const ROTATED: GapReason = GapReason::Rotated;

/// Past what a follow brings before it counts as loud.
const LOUD_LINES: u32 = 1_200;

async fn stage() -> Stage {
    let stage = Stage::new().await;
    stage.pod("p", RestartPolicy::Never).await;
    stage
}

fn write_wide(stage: &Stage, lines: std::ops::Range<u32>) {
    let texts = lines.map(|n| format!("line {n} {}", "x".repeat(1000)));
    stage.cluster.write_lines("app", "p", "c", texts).unwrap();
}

fn numbers(seen: &Seen) -> Vec<u32> {
    let number = |text: &String| text.split(' ').nth(1).unwrap().parse().unwrap();
    seen.texts.iter().map(number).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rotations_that_a_follow_keeps_up_with_are_nobody_s_business() {
    let stage = stage().await;
    let collector = stage.collect().await;
    for round in 0..20 {
        stage.write("p", round * 10..round * 10 + 10);
        stage.until_lines(round as usize * 10 + 10).await;
        stage.cluster.cause(FaultKind::Rotate);
    }
    stage.exit("p").await;
    let seen = stage.until_ended(1).await;
    // Behind the last rotation is an empty file, which cannot prove that nothing was in between.
    assert_eq!(seen[0].texts.len(), 200);
    assert_eq!((&seen[0].gaps[..], seen[0].seqs.len()), (&[][..], 200));
    assert!(seen[0].losses.len() <= 1, "{:?}", seen[0].losses);
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quiet_log_that_was_never_rotated_tells_no_loss_over_reconnects() {
    let stage = stage().await;
    let collector = stage.collect().await;
    for n in 0..8 {
        stage.write("p", n..n + 1);
        stage.until_lines(n as usize + 1).await;
        if n % 2 == 0 {
            stage.cluster.break_streams();
        } else {
            stage.cluster.end_streams();
        }
    }
    stage.exit("p").await;
    stage.until_ended(1).await[0].assert_whole(0..8);
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_behind_the_last_line_had_is_told_in_its_place_and_the_stream_goes_on() {
    let stage = stage().await;
    let collector = stage.collect().await;
    stage.write("p", 0..10);
    stage.until_lines(10).await;
    // The API is away while the node rotates: lines 10 to 19 are never served again.
    stage.cluster.set_down(true);
    stage.write("p", 10..20);
    stage.cluster.cause(FaultKind::Rotate);
    stage.write("p", 20..30);
    stage.cluster.set_down(false);
    stage.until_lines(20).await;
    stage.exit("p").await;
    let seen = stage.until_ended(1).await;
    assert_eq!(numbers(&seen[0]), (0..10).chain(20..30).collect::<Vec<_>>());
    assert_eq!(seen[0].losses, [(10, 0, ROTATED)]);
    assert_eq!(seen[0].gaps, []);
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whole_files_that_a_follow_skipped_are_told_once_in_their_place() {
    let stage = stage().await;
    let counted = Counted::new();
    let collector = stage
        .collect_with(|config| config.metrics = counted.metrics.clone())
        .await;
    stage.gate.hold_looks.store(true, Ordering::SeqCst);
    let mut last = 0;
    while stage.gate.looks.load(Ordering::SeqCst) == 0 {
        write_wide(&stage, last..last + LOUD_LINES);
        last += LOUD_LINES;
        stage.until_lines(last as usize).await;
    }
    stage.cluster.stall_follows(true);
    write_wide(&stage, last..last + 10);
    stage.cluster.cause(FaultKind::Rotate);
    write_wide(&stage, last + 10..last + 20);
    stage.gate.hold_looks.store(false, Ordering::SeqCst);
    counted.until("tributary_collector_looks_total", 1.0).await;
    // Seen, and gone before the follow comes to it; and one more that nobody saw.
    stage.cluster.cause(FaultKind::Rotate);
    write_wide(&stage, last + 20..last + 30);
    stage.cluster.cause(FaultKind::Rotate);
    write_wide(&stage, last + 30..last + 40);
    stage.cluster.stall_follows(false);
    let seen = stage.until_lines(last as usize + 20).await;
    let came: Vec<_> = (0..last + 10).chain(last + 30..last + 40).collect();
    assert_eq!(numbers(&seen), came);
    assert_eq!(seen.losses, [(u64::from(last) + 10, 0, ROTATED)]);
    assert_eq!(seen.gaps, []);
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loud_log_that_is_read_in_time_tells_no_loss_however_often_it_is_rotated() {
    let scenario = Scenario {
        rotate_bytes: 256 << 10,
        ..Scenario::default()
    };
    let stage = Stage::playing(scenario).await;
    stage.pod("p", RestartPolicy::Never).await;
    let counted = Counted::new();
    let collector = stage
        .collect_with(|config| config.metrics = counted.metrics.clone())
        .await;
    let mut last = 0;
    // A file is a quarter of what is loud: between two looks many come and go, each of them read.
    while counted.value("tributary_collector_looks_total") < 3.0 {
        write_wide(&stage, last..last + 100);
        last += 100;
        stage.until_lines(last as usize).await;
    }
    assert!(stage.cluster.written("app", "p", "c")[0].rotations > 3);
    let seen = stage.until_lines(last as usize).await;
    seen.assert_nothing_missing();
    assert_eq!(numbers(&seen), (0..last).collect::<Vec<_>>());
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_follow_leaves_out_when_its_container_exits_is_fetched() {
    let stage = stage().await;
    let collector = stage.collect().await;
    stage.write("p", 0..10);
    stage.until_lines(10).await;
    // It sits on the old file, and ends there when the container exits.
    stage.cluster.cause(FaultKind::StrandFollows);
    stage.cluster.cause(FaultKind::Rotate);
    stage.write("p", 10..500);
    stage.exit("p").await;
    let seen = stage.until_ended(1).await;
    assert_eq!(numbers(&seen[0]), (0..500).collect::<Vec<_>>());
    // The old file's end cannot be looked at any more: what was between is not known.
    assert_eq!(seen[0].losses, [(10, 0, ROTATED)]);
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follow_that_sits_on_a_rotated_file_is_found_out_by_its_silence() {
    let stage = stage().await;
    let collector = stage.collect().await;
    stage.write("p", 0..10);
    stage.until_lines(10).await;
    stage.cluster.cause(FaultKind::StrandFollows);
    stage.cluster.cause(FaultKind::Rotate);
    stage.write("p", 10..20);
    // It looks after 30 s of silence at the latest.
    let patient = Duration::from_secs(60);
    let seen = stage
        .until_within(patient, "the new file's lines", |seen| {
            seen.iter().any(|seen| seen.texts.len() == 20)
        })
        .await;
    assert_eq!(seen[0].losses, [(10, 0, ROTATED)]);
    collector.stop().await;
}
