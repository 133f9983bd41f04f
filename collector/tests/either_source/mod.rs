//! What a collector promises whichever way it reads.
#![allow(clippy::unwrap_used, reason = "a helper's panic fails its test")]

use std::sync::atomic::Ordering;

use crate::support::{Stage, soon};

/// Of a container that is always restarted: each instance is a stream of its own, and whole.
pub async fn each_instance_is_a_stream_of_its_own(stage: Stage) {
    let collector = stage.collect().await;
    for _ in 0..2 {
        soon(stage.cluster.wait_running("app", "p", "c")).await.unwrap();
        stage.write("p", 0..50);
        stage.exit("p").await;
    }
    let seen = stage
        .until("two whole instances", |seen| {
            seen.iter().filter(|seen| seen.ended).count() == 2
        })
        .await;
    for seen in seen.iter().filter(|seen| seen.ended) {
        seen.assert_whole(0..50);
    }
    collector.stop().await;
}

/// A line longer than a batch comes whole, though the collector is killed behind it.
pub async fn a_long_line_is_whole_over_a_kill(stage: Stage) {
    let long = "\u{e9}".repeat(bus::MAX_LINE_BYTES);
    let collector = stage.collect().await;
    let texts = ["before", &long, "after"];
    stage.cluster.write_lines("app", "p", "c", texts).unwrap();
    stage.until_lines(3).await;
    collector.kill().await;
    let collector = stage.collect().await;
    stage.cluster.write_line("app", "p", "c", "later").unwrap();
    let seen = stage.until_lines(4).await;
    assert!(seen.texts == ["before", &long, "after", "later"]);
    seen.assert_nothing_missing();
    assert_eq!(seen.seqs.len(), 5);
    collector.stop().await;
}

/// Two hundred lines are written; of the first hundred the collector has heard that the bus has them, of what it accepted behind them it has not when it is
/// killed. Returns how many lines the bus has.
pub async fn kill_before_it_hears(stage: &Stage) -> usize {
    let collector = stage.collect().await;
    stage.write("p", 0..100);
    stage.until_lines(100).await;
    // Stopped in between: of these lines it has heard.
    collector.stop().await;
    stage.bus.mute.store(true, Ordering::SeqCst);
    let collector = stage.collect().await;
    stage.write("p", 100..200);
    // One batch at least was accepted and not answered.
    let accepted = stage.until_lines(101).await.texts.len();
    collector.kill().await;
    stage.bus.mute.store(false, Ordering::SeqCst);
    accepted
}
