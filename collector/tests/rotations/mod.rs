//! Log rotation: unreadable files are recorded once, at their position, and nothing else is.

use std::{sync::atomic::Ordering, time::Duration};

use bus::GapReason;
use kubesim::{FaultKind, RestartPolicy, Scenario};

use crate::support::{Harness, MetricsProbe, StreamRead};

const ROTATED: GapReason = GapReason::Rotated;
const SUSPECTED: GapReason = GapReason::Suspected;

/// More than a follow delivers before rotation probes start.
const PROBE_LINES: u32 = 1_200;

async fn harness() -> Harness {
    let harness = Harness::new().await;
    harness.pod("p", RestartPolicy::Never).await;
    harness
}

fn write_wide(harness: &Harness, lines: std::ops::Range<u32>) {
    let texts = lines.map(|n| format!("line {n} {}", "x".repeat(1000)));
    harness.cluster.write_lines("app", "p", "c", texts).unwrap();
}

fn numbers(stream: &StreamRead) -> Vec<u32> {
    let number = |text: &String| text.split(' ').nth(1).unwrap().parse().unwrap();
    stream.texts.iter().map(number).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rotations_that_a_follow_keeps_up_with_are_not_gaps() {
    let harness = harness().await;
    let collector = harness.collect().await;
    for round in 0..20 {
        harness.write("p", round * 10..round * 10 + 10);
        harness.wait_for_lines(round as usize * 10 + 10).await;
        harness.cluster.cause(FaultKind::Rotate);
    }
    harness.exit("p").await;
    let streams = harness.wait_for_ended(1).await;
    // The file after the last rotation is empty, which does not prove that nothing was in between.
    assert_eq!(streams[0].texts.len(), 200);
    assert_eq!((&streams[0].silent_gaps[..], streams[0].seqs.len()), (&[][..], 200));
    assert!(streams[0].recorded_gaps.len() <= 1, "{:?}", streams[0].recorded_gaps);
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reconnects_without_rotation_record_no_gap() {
    let harness = harness().await;
    let collector = harness.collect().await;
    for n in 0..8 {
        harness.write("p", n..n + 1);
        harness.wait_for_lines(n as usize + 1).await;
        if n % 2 == 0 {
            harness.cluster.break_streams();
        } else {
            harness.cluster.end_streams();
        }
    }
    harness.exit("p").await;
    harness.wait_for_ended(1).await[0].assert_whole(0..8);
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_after_the_last_line_is_recorded_in_place_and_the_stream_continues() {
    let harness = harness().await;
    let collector = harness.collect().await;
    harness.write("p", 0..10);
    harness.wait_for_lines(10).await;
    // The API is unavailable during the rotation: lines 10 to 19 are never served.
    harness.cluster.set_down(true);
    harness.write("p", 10..20);
    harness.cluster.cause(FaultKind::Rotate);
    harness.write("p", 20..30);
    harness.cluster.set_down(false);
    harness.wait_for_lines(20).await;
    harness.exit("p").await;
    let streams = harness.wait_for_ended(1).await;
    assert_eq!(numbers(&streams[0]), (0..10).chain(20..30).collect::<Vec<_>>());
    assert_eq!(streams[0].recorded_gaps, [(10, 0, SUSPECTED)]);
    assert_eq!(streams[0].silent_gaps, []);
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_skipped_by_a_follow_are_one_gap_in_their_place() {
    let harness = harness().await;
    let counted = MetricsProbe::new();
    let collector = harness
        .collect_with(|config| config.metrics = counted.metrics.clone())
        .await;
    harness.gate.hold_probes.store(true, Ordering::SeqCst);
    let mut last = 0;
    while harness.gate.probes.load(Ordering::SeqCst) == 0 {
        write_wide(&harness, last..last + PROBE_LINES);
        last += PROBE_LINES;
        harness.wait_for_lines(last as usize).await;
    }
    harness.cluster.stall_follows(true);
    write_wide(&harness, last..last + 10);
    harness.cluster.cause(FaultKind::Rotate);
    write_wide(&harness, last + 10..last + 20);
    harness.gate.hold_probes.store(false, Ordering::SeqCst);
    counted.wait_for("tributary_collector_rotation_probes_total", 1.0).await;
    // A probed file that is gone before the follow reaches it, and one that was never probed.
    harness.cluster.cause(FaultKind::Rotate);
    write_wide(&harness, last + 20..last + 30);
    harness.cluster.cause(FaultKind::Rotate);
    write_wide(&harness, last + 30..last + 40);
    harness.cluster.stall_follows(false);
    harness.wait_for_lines(last as usize + 20).await;
    // The next probe finds the follow in a later file than the one before it.
    let streams = harness
        .wait_for("the gap", |streams| !streams[0].recorded_gaps.is_empty())
        .await;
    let stream = &streams[0];
    let received: Vec<_> = (0..last + 10).chain(last + 30..last + 40).collect();
    assert_eq!(numbers(stream), received);
    assert_eq!(stream.recorded_gaps, [(u64::from(last) + 10, 0, ROTATED)]);
    assert_eq!(stream.silent_gaps, []);
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frequent_rotations_of_a_log_read_in_time_are_not_gaps() {
    let scenario = Scenario {
        rotate_bytes: 256 << 10,
        ..Scenario::default()
    };
    let harness = Harness::playing(scenario).await;
    harness.pod("p", RestartPolicy::Never).await;
    let counted = MetricsProbe::new();
    let collector = harness
        .collect_with(|config| config.metrics = counted.metrics.clone())
        .await;
    let mut last = 0;
    // A file is a quarter of the probe threshold: many rotate between two probes, and all are read.
    while counted.value("tributary_collector_rotation_probes_total") < 3.0 {
        write_wide(&harness, last..last + 100);
        last += 100;
        harness.wait_for_lines(last as usize).await;
    }
    assert!(harness.cluster.written("app", "p", "c")[0].rotations > 3);
    let stream = harness.wait_for_lines(last as usize).await;
    stream.assert_no_gaps();
    assert_eq!(numbers(&stream), (0..last).collect::<Vec<_>>());
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_not_delivered_by_a_follow_are_read_after_the_exit() {
    let harness = harness().await;
    let collector = harness.collect().await;
    harness.write("p", 0..10);
    harness.wait_for_lines(10).await;
    // The follow reads the old file, and ends there when the container exits.
    harness.cluster.cause(FaultKind::StrandFollows);
    harness.cluster.cause(FaultKind::Rotate);
    harness.write("p", 10..500);
    harness.exit("p").await;
    let streams = harness.wait_for_ended(1).await;
    assert_eq!(numbers(&streams[0]), (0..500).collect::<Vec<_>>());
    // The end of the old file can no longer be read, so what lies in between is unknown.
    assert_eq!(streams[0].recorded_gaps, [(10, 0, SUSPECTED)]);
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follow_stalled_on_a_rotated_file_is_detected() {
    let harness = harness().await;
    let collector = harness.collect().await;
    harness.write("p", 0..10);
    harness.wait_for_lines(10).await;
    harness.cluster.cause(FaultKind::StrandFollows);
    harness.cluster.cause(FaultKind::Rotate);
    harness.write("p", 10..20);
    // The first probe starts after at most 30 s.
    let patient = Duration::from_secs(60);
    let streams = harness
        .wait_within(patient, "the new file's lines", |streams| {
            streams.iter().any(|stream| stream.texts.len() == 20)
        })
        .await;
    assert_eq!(streams[0].recorded_gaps, [(10, 0, SUSPECTED)]);
    collector.stop().await;
}
