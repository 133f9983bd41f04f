//! A killed collector neither repeats nor loses lines whose acceptance it did not learn of.

#![allow(clippy::unwrap_used, reason = "a helper's panic fails its test")]

use std::fs;

use kubesim::RestartPolicy;

use crate::{
    either_source::{kill_with_unconfirmed_batches, long_line_survives_a_kill},
    node_files::{dir, with_pod},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_accepted_without_a_response_is_neither_lost_nor_repeated() {
    for rotations in 0..3 {
        let harness = with_pod(RestartPolicy::Never).await;
        kill_with_unconfirmed_batches(&harness).await;
        for _ in 0..rotations {
            harness.rotate_file();
        }
        harness.write("p", 200..300);
        let collector = harness.collect().await;
        harness.wait_for_lines(300).await.assert_whole(0..300);
        collector.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_collector_resumes_after_what_it_published() {
    let harness = with_pod(RestartPolicy::Never).await;
    for round in 0..3 {
        let collector = harness.collect().await;
        harness.write("p", round * 100..round * 100 + 50);
        harness.wait_for_lines(round as usize * 100 + 50).await;
        collector.stop().await;
        harness.write("p", round * 100 + 50..round * 100 + 100);
        harness.rotate_file();
    }
    let collector = harness.collect().await;
    harness.wait_for_lines(300).await.assert_whole(0..300);
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gap_not_recorded_before_shutdown_is_recorded_after_it() {
    let harness = with_pod(RestartPolicy::Never).await;
    let collector = harness.collect().await;
    harness.write("p", 0..100);
    harness.wait_for_lines(100).await;
    // No line is left before which the gap could be recorded.
    let file = dir(&harness).join("0.log");
    fs::write(&file, "").unwrap();
    collector.stop().await;
    fs::write(&file, "2026-11-23T08:46:44.9594474Z stdout F line 100\n").unwrap();
    let collector = harness.collect().await;
    let streams = harness
        .wait_for("the new line", |streams| {
            streams
                .iter()
                .any(|stream| stream.texts.last().is_some_and(|text| text == "line 100"))
        })
        .await;
    let recorded: Vec<_> = streams.iter().flat_map(|stream| stream.recorded_gaps.clone()).collect();
    let suspected = recorded.iter().filter(|gap| gap.2 == bus::GapReason::Suspected);
    // The collector may also have recorded one of each output before it stopped.
    assert!(matches!(suspected.count(), 2 | 4), "one of each output: {recorded:?}");
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_line_is_split_consistently_across_a_kill() {
    let harness = with_pod(RestartPolicy::Never).await;
    long_line_survives_a_kill(harness).await;
}
