//! A bus that is away: what was read waits in memory, then on disk, and what is too much for that is told.

use std::{
    ops::Range,
    path::{Path, PathBuf},
    sync::atomic::Ordering,
    time::Duration,
};

use bus::GapReason;
use collector::Config;
use kubesim::RestartPolicy;

use crate::support::{Counted, Seen, Stage, soon};

/// A line's text is padded to this, so that few lines are many bytes.
const WIDTH: usize = 1000;

/// The smallest spool.
const SMALL: u64 = 4 << 20;

fn text(n: u32) -> String {
    format!("line {n} {}", "x".repeat(WIDTH))
}

async fn write_wide(stage: &Stage, pod: &str, lines: Range<u32>) {
    for n in lines.clone().step_by(500) {
        let texts = (n..lines.end.min(n + 500)).map(text);
        stage.cluster.write_lines("app", pod, "c", texts).unwrap();
        tokio::task::yield_now().await;
    }
}

fn away(stage: &Stage, away: bool) {
    stage.bus.away.store(away, Ordering::SeqCst);
}

/// The numbers of the lines that came, each one once and in order.
fn numbers(seen: &Seen) -> Vec<u32> {
    let number = |text: &String| text.split(' ').nth(1).unwrap().parse::<u32>().unwrap();
    let numbers: Vec<_> = seen.texts.iter().map(number).collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "in order and without repeats");
    numbers
}

/// Every line came or lies in a loss of this stream, counted exactly; no other gap.
fn assert_all_accounted(seen: &Seen, total: u64) {
    assert_eq!(seen.gaps, []);
    let mut missing: Vec<Range<u64>> = Vec::new();
    for (seq, lines, reason) in &seen.losses {
        assert_eq!(*reason, GapReason::Spool);
        missing.push(*seq..seq + lines);
    }
    let lost: u64 = missing.iter().map(|range| range.end - range.start).sum();
    assert_eq!(seen.seqs.len() as u64 + lost, total);
    let is_lost = |seq: &u64| missing.iter().any(|range| range.contains(seq));
    assert!(!seen.seqs.iter().any(is_lost), "none both delivered and told lost");
    // Each number is its line's own: nothing was renumbered.
    let named: Vec<_> = numbers(seen).into_iter().map(u64::from).collect();
    assert!(named == seen.seqs);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_rotates_while_the_bus_is_away_loses_nothing() {
    let stage = Stage::new().await;
    stage.pod("p", RestartPolicy::Never).await;
    let collector = stage.collect().await;
    write_wide(&stage, "p", 0..10).await;
    stage.until_lines(10).await;
    away(&stage, true);
    // Three files of the node: the first two are gone before the bus is back.
    let mut written = 10;
    for round in 1..=3 {
        write_wide(&stage, "p", written..written + 11_000).await;
        written += 11_000;
        // A line that has not gathered enough goes to disk by its age.
        stage.until_spooled(round * 11_000 * WIDTH as u64).await;
    }
    assert!(stage.cluster.written("app", "p", "c")[0].rotations >= 3);
    away(&stage, false);
    let seen = stage.until_lines(written as usize).await;
    seen.assert_nothing_missing();
    assert_eq!(numbers(&seen), (0..written).collect::<Vec<_>>());
    assert_eq!(stage.spooled(), 0, "what the bus has is no more on disk");
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_on_disk_goes_out_first_after_a_kill_and_reading_goes_on_behind_it() {
    let stage = Stage::new().await;
    stage.pod("p", RestartPolicy::Never).await;
    let collector = stage.collect().await;
    write_wide(&stage, "p", 0..10).await;
    stage.until_lines(10).await;
    away(&stage, true);
    // The node forgets what the bus had last, and all that is read until the kill.
    write_wide(&stage, "p", 10..12_000).await;
    stage.until_spooled(11_990 * WIDTH as u64).await;
    collector.kill().await;
    write_wide(&stage, "p", 12_000..12_100).await;
    let collector = stage.collect().await;
    stage.until_spooled(12_090 * WIDTH as u64).await;
    collector.kill().await;
    away(&stage, false);
    let collector = stage.collect().await;
    write_wide(&stage, "p", 12_100..12_101).await;
    let seen = stage.until_lines(12_101).await;
    seen.assert_nothing_missing();
    assert_eq!(numbers(&seen), (0..12_101).collect::<Vec<_>>());
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_killed_while_it_catches_up_repeats_and_loses_nothing() {
    let stage = Stage::new().await;
    stage.pod("p", RestartPolicy::Never).await;
    away(&stage, true);
    let mut collector = stage.collect().await;
    write_wide(&stage, "p", 0..9_000).await;
    stage.until_spooled(9_000 * WIDTH as u64).await;
    for enough in [1, 2_500, 5_000] {
        away(&stage, false);
        stage.until_lines(enough).await;
        collector.kill().await;
        collector = stage.collect().await;
    }
    let seen = stage.until_lines(9_000).await;
    seen.assert_nothing_missing();
    assert_eq!(numbers(&seen), (0..9_000).collect::<Vec<_>>());
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_spool_loses_its_oldest_and_tells_how_many_once() {
    for killed in [false, true] {
        let stage = Stage::new().await;
        stage.pod("p", RestartPolicy::Never).await;
        let counted = Counted::new();
        let settings = |config: &mut Config| {
            config.spool_bytes = SMALL;
            config.metrics = counted.metrics.clone();
        };
        let mut collector = stage.collect_with(settings).await;
        write_wide(&stage, "p", 0..10).await;
        stage.until_lines(10).await;
        away(&stage, true);
        for first in (10..16_010).step_by(1_000) {
            write_wide(&stage, "p", first..first + 1_000).await;
        }
        counted.until("tributary_collector_lines_total", 16_010.0).await;
        assert!(stage.spooled() <= SMALL + (2 << 20), "{} bytes", stage.spooled());
        if killed {
            collector.kill().await;
            collector = stage.collect_with(settings).await;
        }
        away(&stage, false);
        let seen = stage
            .until("the newest line", |seen| {
                seen.len() == 1 && seen[0].seqs.last() == Some(&16_009)
            })
            .await;
        assert_all_accounted(&seen[0], 16_010);
        // One, or one that was on its way and one behind it.
        assert!(matches!(seen[0].losses.len(), 1 | 2), "{:?}", seen[0].losses);
        let lost: u64 = seen[0].losses.iter().map(|loss| loss.1).sum();
        assert!(lost > 8_000, "{:?}", seen[0].losses);
        assert_eq!(
            counted.value("tributary_collector_lost_lines_total{reason=\"spool\"}"),
            lost as f64
        );
        collector.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loud_stream_that_fills_the_spool_costs_a_quiet_one_nothing() {
    let stage = Stage::new().await;
    stage.pod("loud", RestartPolicy::Never).await;
    stage.pod("quiet", RestartPolicy::Never).await;
    away(&stage, true);
    let collector = stage.collect_with(|config| config.spool_bytes = SMALL).await;
    stage.write("quiet", 0..50);
    for first in (0..12_000).step_by(1_000) {
        write_wide(&stage, "loud", first..first + 1_000).await;
    }
    stage.until_spooled(SMALL - (1 << 20)).await;
    away(&stage, false);
    let seen = stage
        .until("both", |seen| {
            let has = |process: &str, last: u64| {
                seen.iter()
                    .any(|seen| seen.process == process && seen.seqs.last() == Some(&last))
            };
            has("loud", 11_999) && has("quiet", 49)
        })
        .await;
    for seen in &seen {
        if seen.process == "quiet" {
            seen.assert_whole(0..50);
        } else {
            assert_all_accounted(seen, 12_000);
        }
    }
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_that_ended_while_the_bus_was_away_is_not_read_again() {
    let stage = Stage::new().await;
    stage.pod("p", RestartPolicy::Never).await;
    away(&stage, true);
    let collector = stage.collect().await;
    stage.write("p", 0..100);
    stage.exit("p").await;
    let end = async {
        while !spool_files(&stage).iter().any(|file| has(file, b"\"finish\"")) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    soon(end).await;
    collector.stop().await;
    stage.cluster.delete_pod("app", "p", Some(0)).unwrap();
    soon(stage.cluster.wait_gone("app", "p")).await.unwrap();
    away(&stage, false);
    let collector = stage.collect().await;
    let seen = stage.until_ended(1).await;
    seen[0].assert_whole(0..100);
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_torn_end_of_the_spool_is_cut_off_and_read_again() {
    let stage = Stage::new().await;
    stage.pod("p", RestartPolicy::Never).await;
    away(&stage, true);
    let collector = stage.collect().await;
    for first in (0..1_500).step_by(500) {
        write_wide(&stage, "p", first..first + 500).await;
        stage.until_spooled(u64::from(first + 500) * WIDTH as u64).await;
    }
    collector.kill().await;
    let mut files = spool_files(&stage);
    files.sort();
    let last = std::fs::File::options()
        .write(true)
        .open(files.last().unwrap())
        .unwrap();
    let len = last.metadata().unwrap().len();
    last.set_len(len - 100).unwrap();
    away(&stage, false);
    let collector = stage.collect().await;
    let seen = stage.until_lines(1_500).await;
    seen.assert_nothing_missing();
    assert_eq!(numbers(&seen), (0..1_500).collect::<Vec<_>>());
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_was_removed_is_made_again_and_nothing_is_lost() {
    let stage = Stage::new().await;
    stage.pod("p", RestartPolicy::Never).await;
    let collector = stage.collect().await;
    stage.write("p", 0..10);
    stage.until_lines(10).await;
    stage.bus.unknown.store(true, Ordering::SeqCst);
    stage.write("p", 10..20);
    stage.until_lines(20).await.assert_whole(0..20);
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_the_bus_never_answers_for_is_handed_over_again_and_nothing_repeats() {
    let stage = Stage::new().await;
    stage.pod("p", RestartPolicy::Never).await;
    let collector = stage
        .collect_with(|config| config.publish_wait = Duration::from_millis(200))
        .await;
    stage.bus.mute.store(true, Ordering::SeqCst);
    stage.write("p", 0..10);
    // Taken, and not a word of it.
    stage.until_lines(10).await;
    let handed_over_again = async {
        while stage.bus.handed.load(Ordering::SeqCst) < 3 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    soon(handed_over_again).await;
    stage.write("p", 10..20);
    stage.bus.mute.store(false, Ordering::SeqCst);
    stage.until_lines(20).await.assert_whole(0..20);
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_had_to_wait_have_one_publish_in_flight_each_and_few_at_once() {
    let stage = Stage::new().await;
    let names: Vec<_> = (0..30).map(|n| format!("p{n}")).collect();
    for name in &names {
        stage.pod(name, RestartPolicy::Never).await;
    }
    away(&stage, true);
    let collector = stage.collect().await;
    names.iter().for_each(|name| stage.write(name, 0..100));
    let all_on_disk = async {
        while spool_files(&stage).len() < names.len() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    soon(all_on_disk).await;
    stage.bus.most_at_once.store(0, Ordering::SeqCst);
    stage.bus.slow.store(true, Ordering::SeqCst);
    away(&stage, false);
    let seen = stage
        .until("all of all", |seen| {
            seen.len() == 30 && seen.iter().all(|seen| seen.texts.len() == 100)
        })
        .await;
    seen.iter().for_each(|seen| seen.assert_whole(0..100));
    assert!(!stage.bus.overlapped.load(Ordering::SeqCst));
    let most = stage.bus.most_at_once.load(Ordering::SeqCst);
    assert!((1..=8).contains(&most), "{most} at once");
    collector.stop().await;
}

fn spool_files(stage: &Stage) -> Vec<PathBuf> {
    let streams = std::fs::read_dir(stage.dir.path().join("checkpoints/spool"));
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
