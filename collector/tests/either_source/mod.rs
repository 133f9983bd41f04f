//! Guarantees that hold for both sources.
#![allow(clippy::unwrap_used, reason = "a helper's panic fails its test")]

use std::sync::atomic::Ordering;

use crate::support::{Harness, StreamRead, in_time};

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

/// What a pod prints while it is excluded is not published: without a gap, and with one message.
/// `dropped` returns once the collector has skipped this many lines.
pub async fn exclusion_takes_effect_at_once(harness: Harness, dropped: impl AsyncFn(u32), metrics: collector::Metrics) {
    let collector = harness.collect_with(|config| config.metrics = metrics.clone()).await;
    let exclude = |value| {
        let annotated = harness
            .cluster
            .set_annotation("app", "p", "tributary.dev/exclude", value);
        annotated.unwrap();
    };
    let of = |streams: &[StreamRead], process: &str| -> Vec<StreamRead> {
        let of_process = streams.iter().filter(|stream| stream.process == process);
        of_process.cloned().collect()
    };
    let messages = |streams: &[StreamRead]| {
        of(streams, "tributary")
            .iter()
            .map(|stream| stream.texts.len())
            .sum::<usize>()
    };
    harness.write("p", 0..50);
    harness.wait_for_lines(50).await;
    exclude(Some("true"));
    harness.wait_for("a message", |streams| messages(streams) == 1).await;
    harness.write("p", 50..100);
    dropped(50).await;
    exclude(None);
    // Lines that are printed before the collector learns of the change are skipped too.
    let mut next = 100;
    let streams = loop {
        harness.write("p", next..next + 1);
        next += 1;
        let streams: Vec<_> = harness.streams().await.into_values().collect();
        if of(&streams, "p").iter().any(|stream| stream.texts.len() > 60) {
            break streams;
        }
    };
    collector.stop().await;
    let [stream] = &of(&streams, "p")[..] else {
        panic!("one stream")
    };
    let first: Vec<_> = (0..50).map(|n| format!("line {n}")).collect();
    assert_eq!(stream.texts[..50], first);
    let numbers: Vec<u32> = stream.texts[50..]
        .iter()
        .map(|text| text[5..].parse().unwrap())
        .collect();
    assert!(
        numbers[0] >= 100 && numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]),
        "{numbers:?}"
    );
    stream.assert_no_gaps();
    assert_eq!(messages(&streams), 1);
    assert!(of(&streams, "tributary")[0].texts[0].contains("The lines of p are not collected"));
}
