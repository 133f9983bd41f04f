//! Guarantees that hold for both sources.
#![allow(clippy::unwrap_used, reason = "a helper's panic fails its test")]

use std::sync::atomic::Ordering;

use crate::support::{Harness, in_time};

/// Each instance of a container that is always restarted is a separate, complete stream.
pub async fn instances_are_separate_streams(harness: Harness) {
    let collector = harness.collect().await;
    for _ in 0..2 {
        in_time(harness.cluster.wait_running("app", "p", "c")).await.unwrap();
        harness.write("p", 0..50);
        harness.exit("p").await;
    }
    let streams = harness
        .wait_for("two ended streams", |streams| {
            streams.iter().filter(|stream| stream.ended).count() == 2
        })
        .await;
    for stream in streams.iter().filter(|stream| stream.ended) {
        stream.assert_whole(0..50);
    }
    collector.stop().await;
}

/// A line longer than a batch is complete although the collector is killed after it.
pub async fn long_line_survives_a_kill(harness: Harness) {
    let long = "\u{e9}".repeat(bus::MAX_LINE_BYTES);
    let collector = harness.collect().await;
    let texts = ["before", &long, "after"];
    harness.cluster.write_lines("app", "p", "c", texts).unwrap();
    harness.wait_for_lines(3).await;
    collector.kill().await;
    let collector = harness.collect().await;
    harness.cluster.write_line("app", "p", "c", "later").unwrap();
    let stream = harness.wait_for_lines(4).await;
    assert!(stream.texts == ["before", &long, "after", "later"]);
    stream.assert_no_gaps();
    assert_eq!(stream.seqs.len(), 5);
    collector.stop().await;
}

/// Writes 200 lines. The collector knows that the bus accepted the first 100, and is killed before
/// it learns that the bus accepted some of the others. Returns the number of lines on the bus.
pub async fn kill_with_unconfirmed_batches(harness: &Harness) -> usize {
    let collector = harness.collect().await;
    harness.write("p", 0..100);
    harness.wait_for_lines(100).await;
    // After a graceful shutdown the first 100 lines are confirmed.
    collector.stop().await;
    harness.bus.no_response.store(true, Ordering::SeqCst);
    let collector = harness.collect().await;
    harness.write("p", 100..200);
    // At least one batch was accepted without a response.
    let accepted = harness.wait_for_lines(101).await.texts.len();
    collector.kill().await;
    harness.bus.no_response.store(false, Ordering::SeqCst);
    accepted
}
