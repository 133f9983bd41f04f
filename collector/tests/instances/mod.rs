//! Instances that start and end while the collector cannot see them, and tasks that fail.

use std::{sync::atomic::Ordering, time::Duration};

use bus::GapReason;
use kubesim::{FaultKind, RestartPolicy};

use crate::support::{Harness, StreamRead, in_time};

/// Ends the running instance and the next one; the third is then the only one listed.
async fn restart_twice(harness: &Harness, pod: &str) {
    harness.exit(pod).await;
    for first in [50, 100] {
        in_time(harness.cluster.wait_running("app", pod, "c")).await.unwrap();
        harness.write(pod, first..first + 10);
        harness.exit(pod).await;
    }
}

fn stream_of<'a>(streams: &'a [StreamRead], first: &str) -> &'a StreamRead {
    let found = streams
        .iter()
        .find(|stream| stream.texts.first().is_some_and(|text| text == first));
    found.unwrap()
}

fn assert_middle_instance_is_a_gap(streams: &[StreamRead]) {
    let newest = stream_of(streams, "line 100");
    assert_eq!(newest.recorded_gaps, [(0, 0, GapReason::Suspected)]);
    assert_eq!((newest.texts.len(), &newest.silent_gaps[..]), (10, &[][..]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_missed_while_the_collector_was_stopped_is_recorded_once() {
    let harness = Harness::new().await;
    harness.pod("p", RestartPolicy::Always).await;
    let collector = harness.collect().await;
    harness.write("p", 0..10);
    harness.wait_for_lines(10).await;
    collector.kill().await;
    restart_twice(&harness, "p").await;
    for _ in 0..2 {
        let collector = harness.collect().await;
        let streams = harness.wait_for_ended(2).await;
        assert_eq!(
            stream_of(&streams, "line 0").recorded_gaps,
            [(10, 0, GapReason::Suspected)]
        );
        assert_middle_instance_is_a_gap(&streams);
        collector.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_never_reported_by_the_watch_is_recorded() {
    let harness = Harness::new().await;
    harness.pod("p", RestartPolicy::Always).await;
    let collector = harness.collect().await;
    harness.write("p", 0..10);
    harness.wait_for_lines(10).await;
    harness.gate.pods_unavailable.store(true, Ordering::SeqCst);
    harness.cluster.break_streams();
    restart_twice(&harness, "p").await;
    harness.gate.pods_unavailable.store(false, Ordering::SeqCst);
    // A resumed watch may still report the instance, too late for reading; then its own stream has
    // the gap.
    let recorded = [(0, 0, GapReason::Suspected)];
    let streams = harness
        .wait_for("the newest instance and the gap before it", |streams| {
            let newest =
                |stream: &StreamRead| stream.ended && stream.texts.last().is_some_and(|text| text == "line 109");
            streams.iter().any(newest) && streams.iter().any(|stream| stream.recorded_gaps == recorded)
        })
        .await;
    // Each instance that started while the API was away says so once.
    assert!(
        streams
            .iter()
            .all(|stream| stream.recorded_gaps.len() <= 1 || stream.texts.first().is_some_and(|text| text == "line 0"))
    );
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_checkpoint_of_an_ended_instance_reveals_unseen_successors() {
    let harness = Harness::new().await;
    harness.pod("p", RestartPolicy::Always).await;
    harness.write("p", 0..10);
    let collector = harness.collect().await;
    harness.exit("p").await;
    harness.wait_for_ended(1).await[0].assert_whole(0..10);
    // The next instance starts about a second after the end.
    collector.stop().await;
    for first in [50, 100] {
        in_time(harness.cluster.wait_running("app", "p", "c")).await.unwrap();
        harness.write("p", first..first + 10);
        harness.exit("p").await;
    }
    let collector = harness.collect().await;
    let streams = harness.wait_for_ended(2).await;
    stream_of(&streams, "line 0").assert_whole(0..10);
    assert_middle_instance_is_a_gap(&streams);
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn earlier_instances_of_an_unknown_container_are_not_a_gap() {
    let harness = Harness::new().await;
    harness.pod("p", RestartPolicy::Always).await;
    harness.write("p", 0..10);
    harness.exit("p").await;
    in_time(harness.cluster.wait_running("app", "p", "c")).await.unwrap();
    harness.write("p", 50..60);
    harness.exit("p").await;
    let collector = harness.collect().await;
    harness.wait_for_ended(1).await[0].assert_whole(50..60);
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_start_of_a_log_that_was_never_read_may_be_missing_even_if_it_is_empty() {
    let harness = Harness::new().await;
    harness.pod("p", RestartPolicy::Never).await;
    let collector = harness.collect().await;
    harness.write("p", 0..10);
    harness.wait_for_lines(10).await;
    collector.stop().await;
    harness.pod("q", RestartPolicy::Never).await;
    harness.write("q", 0..10);
    harness.cluster.cause(FaultKind::Rotate);
    let collector = harness.collect().await;
    let suspected = [(0, 0, GapReason::Suspected)];
    let is_suspected = |stream: &StreamRead| stream.process == "q" && stream.recorded_gaps == suspected;
    harness
        .wait_for("the gap in front of the empty log", |streams| {
            streams.iter().any(is_suspected)
        })
        .await;
    harness.write("q", 10..20);
    harness.exit("q").await;
    let streams = harness
        .wait_for("the end of the new instance", |streams| {
            streams.iter().any(|stream| stream.process == "q" && stream.ended)
        })
        .await;
    let new = streams.iter().find(|stream| stream.process == "q").unwrap();
    assert_eq!((new.texts.len(), &new.recorded_gaps[..]), (10, &suspected[..]));
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_start_of_a_log_that_is_read_late_may_be_missing() {
    let harness = Harness::new().await;
    let collector = harness.collect().await;
    harness.gate.hold.store(true, Ordering::SeqCst);
    harness.pod("p", RestartPolicy::Never).await;
    harness.write("p", 0..10);
    // Longer than a log stays whole after its container has started.
    tokio::time::sleep(Duration::from_secs(4)).await;
    harness.gate.hold.store(false, Ordering::SeqCst);
    let stream = harness.wait_for_lines(10).await;
    assert_eq!(stream.recorded_gaps, [(0, 0, GapReason::Suspected)]);
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_start_of_a_log_whose_status_is_reported_late_may_be_missing() {
    let harness = Harness::new().await;
    harness.pod("p", RestartPolicy::Always).await;
    let collector = harness.collect().await;
    harness.write("p", 0..10);
    harness.wait_for_lines(10).await;
    harness.cluster.cause(FaultKind::StatusLag {
        duration: Duration::from_secs(30),
        delay: Duration::from_secs(6),
    });
    harness.exit("p").await;
    let restarted = async {
        while harness.cluster.write_line("app", "p", "c", "line 10").is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    in_time(restarted).await;
    harness.cluster.cause(FaultKind::Rotate);
    // Longer than a log stays whole after its container has started.
    tokio::time::sleep(Duration::from_secs(4)).await;
    harness.write("p", 20..30);
    let is_read = |stream: &StreamRead| stream.texts.first().is_some_and(|text| text == "line 20");
    let streams = harness
        .wait_for("the second instance", |streams| streams.iter().any(is_read))
        .await;
    assert_eq!(
        stream_of(&streams, "line 20").recorded_gaps,
        [(0, 0, GapReason::Suspected)]
    );
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_task_is_restarted_from_its_checkpoint() {
    let harness = Harness::new().await;
    harness.pod("p", RestartPolicy::Never).await;
    let collector = harness.collect().await;
    harness.write("p", 0..10);
    harness.wait_for_lines(10).await;
    harness.bus.panic_once.store(true, Ordering::SeqCst);
    harness.write("p", 10..20);
    harness.wait_for_lines(20).await;
    harness.exit("p").await;
    harness.wait_for_ended(1).await[0].assert_whole(0..20);
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stall_probe_does_not_block_the_follow() {
    let harness = Harness::new().await;
    harness.pod("p", RestartPolicy::Never).await;
    let collector = harness.collect().await;
    harness.write("p", 0..1);
    harness.wait_for_lines(1).await;
    let log_requests = harness.gate.logs.load(Ordering::SeqCst);
    harness.gate.hold.store(true, Ordering::SeqCst);
    let probed = async {
        while harness.gate.logs.load(Ordering::SeqCst) == log_requests {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    // The first probe starts after at most 30 s.
    tokio::time::timeout(Duration::from_secs(60), probed).await.unwrap();
    harness.write("p", 1..2);
    harness.wait_for_lines(2).await.assert_whole(0..2);
    collector.stop().await;
}
