//! What a killed collector does not repeat and does not lose, where it could not know what the bus had.

#![allow(clippy::unwrap_used, reason = "a helper's panic fails its test")]

use std::fs;

use kubesim::RestartPolicy;

use crate::{
    either_source::{a_long_line_is_whole_over_a_kill, kill_before_it_hears},
    node_files::{dir, with_pod},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_whose_acceptance_was_never_heard_of_is_neither_lost_nor_repeated() {
    for rotations in 0..3 {
        let stage = with_pod(RestartPolicy::Never).await;
        kill_before_it_hears(&stage).await;
        for _ in 0..rotations {
            stage.rotate_file();
        }
        stage.write("p", 200..300);
        let collector = stage.collect().await;
        stage.until_lines(300).await.assert_whole(0..300);
        collector.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_collector_goes_on_behind_what_it_published() {
    let stage = with_pod(RestartPolicy::Never).await;
    for round in 0..3 {
        let collector = stage.collect().await;
        stage.write("p", round * 100..round * 100 + 50);
        stage.until_lines(round as usize * 100 + 50).await;
        collector.stop().await;
        stage.write("p", round * 100 + 50..round * 100 + 100);
        stage.rotate_file();
    }
    let collector = stage.collect().await;
    stage.until_lines(300).await.assert_whole(0..300);
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hole_that_was_not_told_before_a_stop_is_told_after_it() {
    let stage = with_pod(RestartPolicy::Never).await;
    let collector = stage.collect().await;
    stage.write("p", 0..100);
    stage.until_lines(100).await;
    // Nothing is left to tell it before.
    let file = dir(&stage).join("0.log");
    fs::write(&file, "").unwrap();
    collector.stop().await;
    fs::write(&file, "2026-11-23T08:46:44.9594474Z stdout F line 100\n").unwrap();
    let collector = stage.collect().await;
    let seen = stage
        .until("the new line", |seen| {
            seen.iter()
                .any(|seen| seen.texts.last().is_some_and(|text| text == "line 100"))
        })
        .await;
    let told: Vec<_> = seen.iter().flat_map(|seen| seen.losses.clone()).collect();
    assert_eq!(told.len(), 1, "{told:?}");
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_too_long_comes_in_parts_also_over_a_kill() {
    let stage = with_pod(RestartPolicy::Never).await;
    a_long_line_is_whole_over_a_kill(stage).await;
}
