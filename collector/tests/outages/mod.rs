//! Bus outages: data waits in memory, then in the spool; what exceeds the spool is a recorded gap.

use std::{
    ops::Range,
    path::{Path, PathBuf},
    sync::atomic::Ordering,
    time::Duration,
};

use bus::GapReason;
use collector::Config;
use kubesim::{FaultKind, RestartPolicy};

use crate::support::{Harness, MetricsProbe, StreamRead, in_time};

/// Padding, so that few lines are many bytes.
const WIDTH: usize = 1000;

/// The smallest spool.
const SMALL: u64 = 4 << 20;

fn text(n: u32) -> String {
    format!("line {n} {}", "x".repeat(WIDTH))
}

async fn write_wide(harness: &Harness, pod: &str, lines: Range<u32>) {
    for n in lines.clone().step_by(500) {
        let texts = (n..lines.end.min(n + 500)).map(text);
        harness.cluster.write_lines("app", pod, "c", texts).unwrap();
        tokio::task::yield_now().await;
    }
}

fn unavailable(harness: &Harness, unavailable: bool) {
    harness.bus.unavailable.store(unavailable, Ordering::SeqCst);
}

/// Returns the numbers of the lines read, and asserts that they are ordered and unique.
fn numbers(stream: &StreamRead) -> Vec<u32> {
    let number = |text: &String| text.split(' ').nth(1).unwrap().parse::<u32>().unwrap();
    let numbers: Vec<_> = stream.texts.iter().map(number).collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "ordered without repeats");
    numbers
}

/// Asserts that each of `total` lines was read or lies in a gap with an exact count, and that there
/// is no other gap.
fn assert_accounted_for(stream: &StreamRead, total: u64) {
    assert_eq!(stream.silent_gaps, []);
    let mut missing: Vec<Range<u64>> = Vec::new();
    for (seq, lines, reason) in &stream.recorded_gaps {
        assert_eq!(*reason, GapReason::Spool);
        missing.push(*seq..seq + lines);
    }
    let lost: u64 = missing.iter().map(|range| range.end - range.start).sum();
    assert_eq!(stream.seqs.len() as u64 + lost, total);
    let is_lost = |seq: &u64| missing.iter().any(|range| range.contains(seq));
    assert!(!stream.seqs.iter().any(is_lost), "no line both read and in a gap");
    // Each line kept its sequence number.
    let named: Vec<_> = numbers(stream).into_iter().map(u64::from).collect();
    assert!(named == stream.seqs);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rotations_during_an_outage_lose_nothing() {
    let harness = Harness::new().await;
    harness.pod("p", RestartPolicy::Never).await;
    let collector = harness.collect().await;
    write_wide(&harness, "p", 0..10).await;
    harness.wait_for_lines(10).await;
    unavailable(&harness, true);
    // Three files of the node; the first two are gone before the bus recovers.
    let mut written = 10;
    for round in 1..=3 {
        write_wide(&harness, "p", written..written + 11_000).await;
        written += 11_000;
        // A line that waits alone is spooled by age.
        harness.wait_for_spooled(round * 11_000 * WIDTH as u64).await;
    }
    assert!(harness.cluster.written("app", "p", "c")[0].rotations >= 3);
    unavailable(&harness, false);
    let stream = harness.wait_for_lines(written as usize).await;
    stream.assert_no_gaps();
    assert_eq!(numbers(&stream), (0..written).collect::<Vec<_>>());
    assert_eq!(harness.spooled(), 0, "accepted data is removed from the spool");
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_starts_during_an_outage_is_read_at_once() {
    let harness = Harness::new().await;
    harness.pod("p", RestartPolicy::Always).await;
    let collector = harness.collect().await;
    write_wide(&harness, "p", 0..10).await;
    harness.wait_for_lines(10).await;
    unavailable(&harness, true);
    write_wide(&harness, "p", 10..20).await;
    harness.wait_for_spooled(10 * WIDTH as u64).await;
    // The log of the first instance ends with a file that has no line that was sent to the bus.
    harness.cluster.cause(FaultKind::Rotate);
    write_wide(&harness, "p", 20..30).await;
    harness.wait_for_spooled(20 * WIDTH as u64).await;
    harness.exit("p").await;
    in_time(harness.cluster.wait_running("app", "p", "c")).await.unwrap();
    write_wide(&harness, "p", 30..40).await;
    harness.wait_for_spooled(30 * WIDTH as u64).await;
    unavailable(&harness, false);
    let has_all = |streams: &[StreamRead]| streams.iter().flat_map(numbers).count() == 40;
    let mut streams = harness.wait_for("the lines of both instances", has_all).await;
    streams.sort_by_key(|stream| numbers(stream)[0]);
    let all: Vec<_> = streams.iter().map(numbers).collect();
    assert_eq!(all, [(0..30).collect::<Vec<u32>>(), (30..40).collect()]);
    streams.iter().for_each(StreamRead::assert_no_gaps);
    collector.stop().await;
}

/// Kills a collector that has spooled 11,990 lines. The node drops the last confirmed line and
/// everything read until the kill, so that only the spool has it.
async fn killed_while_spooling() -> Harness {
    let harness = Harness::new().await;
    harness.pod("p", RestartPolicy::Never).await;
    let collector = harness.collect().await;
    write_wide(&harness, "p", 0..10).await;
    harness.wait_for_lines(10).await;
    unavailable(&harness, true);
    write_wide(&harness, "p", 10..12_000).await;
    harness.wait_for_spooled(11_990 * WIDTH as u64).await;
    collector.kill().await;
    harness
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spooled_data_is_published_first_after_a_kill_and_reading_resumes_after_it() {
    let harness = killed_while_spooling().await;
    write_wide(&harness, "p", 12_000..12_100).await;
    let collector = harness.collect().await;
    harness.wait_for_spooled(12_090 * WIDTH as u64).await;
    collector.kill().await;
    unavailable(&harness, false);
    let collector = harness.collect().await;
    write_wide(&harness, "p", 12_100..12_101).await;
    let stream = harness.wait_for_lines(12_101).await;
    stream.assert_no_gaps();
    assert_eq!(numbers(&stream), (0..12_101).collect::<Vec<_>>());
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spooled_data_is_published_even_if_its_checkpoint_is_lost() {
    for is_pod_gone in [false, true] {
        let harness = killed_while_spooling().await;
        let dir = std::fs::read_dir(harness.dir.path().join("checkpoints")).unwrap();
        let mut paths = dir.map(|entry| entry.unwrap().path());
        let journal = paths.find(|path| path.file_stem().is_some_and(|stem| stem == "checkpoints"));
        std::fs::write(journal.unwrap(), "damaged").unwrap();
        if is_pod_gone {
            harness.cluster.delete_pod("app", "p", Some(0)).unwrap();
            in_time(harness.cluster.wait_gone("app", "p")).await.unwrap();
        }
        unavailable(&harness, false);
        let collector = harness.collect().await;
        if is_pod_gone {
            let streams = harness
                .wait_for("an end", |streams| streams.iter().any(|stream| stream.ended))
                .await;
            let spooled: Vec<_> = streams.iter().flat_map(numbers).collect();
            assert!(spooled.len() > 11_000, "{} lines", spooled.len());
            assert_eq!(spooled, (0..spooled.len() as u32).collect::<Vec<_>>());
            // What was not spooled yet.
            let ended = streams.iter().find(|stream| stream.ended).unwrap();
            let suspected = ended.recorded_gaps.iter().filter(|gap| gap.2 == GapReason::Suspected);
            assert_eq!(suspected.count(), 1, "{:?}", ended.recorded_gaps);
        } else {
            write_wide(&harness, "p", 12_000..12_100).await;
            let is_complete = |streams: &[StreamRead]| streams.iter().flat_map(numbers).count() >= 12_100;
            let streams = harness.wait_for("all lines", is_complete).await;
            let all: Vec<_> = streams.iter().flat_map(numbers).collect();
            assert_eq!(all, (0..12_100).collect::<Vec<_>>());
            assert_eq!(streams[1].recorded_gaps, [(0, 0, GapReason::MayRepeat)]);
        }
        collector.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_killed_while_catching_up_repeats_and_loses_nothing() {
    let harness = Harness::new().await;
    harness.pod("p", RestartPolicy::Never).await;
    unavailable(&harness, true);
    let mut collector = harness.collect().await;
    write_wide(&harness, "p", 0..9_000).await;
    harness.wait_for_spooled(9_000 * WIDTH as u64).await;
    for enough in [1, 2_500, 5_000] {
        unavailable(&harness, false);
        harness.wait_for_lines(enough).await;
        collector.kill().await;
        collector = harness.collect().await;
    }
    let stream = harness.wait_for_lines(9_000).await;
    stream.assert_no_gaps();
    assert_eq!(numbers(&stream), (0..9_000).collect::<Vec<_>>());
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_spool_drops_the_oldest_batches_and_records_their_count_once() {
    for killed in [false, true] {
        let harness = Harness::new().await;
        harness.pod("p", RestartPolicy::Never).await;
        let counted = MetricsProbe::new();
        let settings = |config: &mut Config| {
            config.spool_bytes = SMALL;
            config.metrics = counted.metrics.clone();
        };
        let mut collector = harness.collect_with(settings).await;
        write_wide(&harness, "p", 0..10).await;
        harness.wait_for_lines(10).await;
        unavailable(&harness, true);
        for first in (10..16_010).step_by(1_000) {
            write_wide(&harness, "p", first..first + 1_000).await;
        }
        counted.wait_for("tributary_collector_lines_total", 16_010.0).await;
        assert!(harness.spooled() <= SMALL + (2 << 20), "{} bytes", harness.spooled());
        if killed {
            collector.kill().await;
            collector = harness.collect_with(settings).await;
        }
        unavailable(&harness, false);
        let streams = harness
            .wait_for("the newest line", |streams| {
                streams.len() == 1 && streams[0].seqs.last() == Some(&16_009)
            })
            .await;
        assert_accounted_for(&streams[0], 16_010);
        // One gap, or one for a batch in flight and one after it.
        assert!(
            matches!(streams[0].recorded_gaps.len(), 1 | 2),
            "{:?}",
            streams[0].recorded_gaps
        );
        let lost: u64 = streams[0].recorded_gaps.iter().map(|gap| gap.1).sum();
        assert!(lost > 8_000, "{:?}", streams[0].recorded_gaps);
        assert_eq!(
            counted.value("tributary_collector_lost_lines_total{reason=\"spool\"}"),
            lost as f64
        );
        collector.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_fills_the_spool_does_not_affect_others() {
    let harness = Harness::new().await;
    harness.pod("loud", RestartPolicy::Never).await;
    harness.pod("quiet", RestartPolicy::Never).await;
    unavailable(&harness, true);
    let collector = harness.collect_with(|config| config.spool_bytes = SMALL).await;
    harness.write("quiet", 0..50);
    for first in (0..12_000).step_by(1_000) {
        write_wide(&harness, "loud", first..first + 1_000).await;
    }
    harness.wait_for_spooled(SMALL - (1 << 20)).await;
    unavailable(&harness, false);
    let streams = harness
        .wait_for("both streams", |streams| {
            let has = |process: &str, last: u64| {
                streams
                    .iter()
                    .any(|stream| stream.process == process && stream.seqs.last() == Some(&last))
            };
            has("loud", 11_999) && has("quiet", 49)
        })
        .await;
    for stream in &streams {
        if stream.process == "quiet" {
            stream.assert_whole(0..50);
        } else {
            assert_accounted_for(stream, 12_000);
        }
    }
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_that_ended_during_an_outage_is_not_read_again() {
    let harness = Harness::new().await;
    harness.pod("p", RestartPolicy::Never).await;
    unavailable(&harness, true);
    let collector = harness.collect().await;
    harness.write("p", 0..100);
    harness.exit("p").await;
    let end = async {
        while !spool_files(&harness).iter().any(|file| has(file, b"\"finish\"")) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    in_time(end).await;
    collector.stop().await;
    harness.cluster.delete_pod("app", "p", Some(0)).unwrap();
    in_time(harness.cluster.wait_gone("app", "p")).await.unwrap();
    unavailable(&harness, false);
    let collector = harness.collect().await;
    let streams = harness.wait_for_ended(1).await;
    streams[0].assert_whole(0..100);
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_incomplete_end_of_the_spool_is_truncated_and_read_again() {
    let harness = Harness::new().await;
    harness.pod("p", RestartPolicy::Never).await;
    unavailable(&harness, true);
    let collector = harness.collect().await;
    for first in (0..1_500).step_by(500) {
        write_wide(&harness, "p", first..first + 500).await;
        harness.wait_for_spooled(u64::from(first + 500) * WIDTH as u64).await;
    }
    collector.kill().await;
    let mut files = spool_files(&harness);
    files.sort();
    let last = std::fs::File::options()
        .write(true)
        .open(files.last().unwrap())
        .unwrap();
    let len = last.metadata().unwrap().len();
    last.set_len(len - 100).unwrap();
    unavailable(&harness, false);
    let collector = harness.collect().await;
    let stream = harness.wait_for_lines(1_500).await;
    stream.assert_no_gaps();
    assert_eq!(numbers(&stream), (0..1_500).collect::<Vec<_>>());
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_topic_is_created_again_without_losses() {
    let harness = Harness::new().await;
    harness.pod("p", RestartPolicy::Never).await;
    let collector = harness.collect().await;
    harness.write("p", 0..10);
    harness.wait_for_lines(10).await;
    harness.bus.topic_missing.store(true, Ordering::SeqCst);
    harness.write("p", 10..20);
    harness.wait_for_lines(20).await.assert_whole(0..20);
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_without_a_response_is_published_again_without_repeats() {
    let harness = Harness::new().await;
    harness.pod("p", RestartPolicy::Never).await;
    let collector = harness
        .collect_with(|config| config.publish_wait = Duration::from_millis(200))
        .await;
    harness.bus.no_response.store(true, Ordering::SeqCst);
    harness.write("p", 0..10);
    // Accepted without a response.
    harness.wait_for_lines(10).await;
    let handed_over_again = async {
        while harness.bus.publish_attempts.load(Ordering::SeqCst) < 3 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    in_time(handed_over_again).await;
    harness.write("p", 10..20);
    harness.bus.no_response.store(false, Ordering::SeqCst);
    harness.wait_for_lines(20).await.assert_whole(0..20);
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn delayed_streams_publish_a_few_at_a_time_with_one_batch_in_flight_each() {
    let harness = Harness::new().await;
    let names: Vec<_> = (0..30).map(|n| format!("p{n}")).collect();
    for name in &names {
        harness.pod(name, RestartPolicy::Never).await;
    }
    unavailable(&harness, true);
    let collector = harness.collect().await;
    names.iter().for_each(|name| harness.write(name, 0..100));
    let all_on_disk = async {
        while spool_files(&harness).len() < names.len() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    in_time(all_on_disk).await;
    harness.bus.max_in_flight.store(0, Ordering::SeqCst);
    harness.bus.is_slow.store(true, Ordering::SeqCst);
    unavailable(&harness, false);
    let streams = harness
        .wait_for("all lines of all streams", |streams| {
            streams.len() == 30 && streams.iter().all(|stream| stream.texts.len() == 100)
        })
        .await;
    streams.iter().for_each(|stream| stream.assert_whole(0..100));
    assert!(!harness.bus.overlapped.load(Ordering::SeqCst));
    let most = harness.bus.max_in_flight.load(Ordering::SeqCst);
    assert!((1..=8).contains(&most), "{most} publishes in flight");
    collector.stop().await;
}

fn spool_files(harness: &Harness) -> Vec<PathBuf> {
    let streams = std::fs::read_dir(harness.dir.path().join("checkpoints/spool"));
    let streams = streams.into_iter().flatten().flatten();
    let files = streams.flat_map(|stream| std::fs::read_dir(stream.path()).into_iter().flatten().flatten());
    let files = files.map(|file| file.path());
    files
        .filter(|file| file.extension().is_some_and(|kind| kind == "spool"))
        .collect()
}

fn has(file: &Path, text: &[u8]) -> bool {
    let bytes = std::fs::read(file).unwrap_or_default();
    bytes.windows(text.len()).any(|window| window == text)
}
