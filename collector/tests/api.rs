//! Guarantees of the collector with `Source::Api`, against a simulated cluster and the embedded
//! bus.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests use the operating system directly"
)]
#![allow(clippy::unwrap_used, reason = "a helper's panic fails its test")]

mod chaos;
mod directory;
mod either_source;
mod instances;
mod limits;
mod nodes;
mod outages;
mod roles;
mod rotations;
mod support;
mod topics;

use std::sync::atomic::Ordering;

use bus::GapReason;
use kubesim::{Cluster, FaultKind, RestartPolicy, Scenario};
use support::{Harness, StreamRead, in_time};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_line_of_every_container_is_read_once() {
    let scenario = Scenario::from_toml(
        r#"
        [[pods]]
        namespace = "app"
        name = "web"
        replicas = 4
        [[pods.containers]]
        name = "a"
        lines = 3000
        rate = 0
        text = "line {seq}"
        [[pods.containers]]
        name = "b"
        lines = 40
        rate = 100
        text = "line {seq}"
        "#,
    )
    .unwrap();
    let harness = Harness::playing(scenario).await;
    let collector = harness.collect().await;
    for stream in harness.wait_for_ended(8).await {
        let lines = if stream.process.ends_with("/a") { 3000 } else { 40 };
        stream.assert_whole(0..lines);
    }
    assert!(
        !harness.bus.overlapped.load(Ordering::SeqCst),
        "at most one publish in flight per stream"
    );
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_container_is_read_from_its_first_line_and_live() {
    let harness = Harness::new().await;
    harness.pod("p", RestartPolicy::Never).await;
    harness.write("p", 0..100);
    let collector = harness.collect().await;
    harness.wait_for_lines(100).await;
    for n in 100..110 {
        harness.write("p", n..n + 1);
        harness.wait_for_lines(n as usize + 1).await;
    }
    harness.cluster.write_unterminated("app", "p", "c", "line 110").unwrap();
    harness.exit("p").await;
    let streams = harness.wait_for_ended(1).await;
    streams[0].assert_whole(0..111);
    assert_eq!(streams[0].process, "p");
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_and_ended_follows_are_resumed_exactly() {
    let harness = Harness::new().await;
    harness.pod("p", RestartPolicy::Never).await;
    let collector = harness.collect().await;
    let faults: [fn(&Cluster); 3] = [Cluster::break_streams, Cluster::end_streams, |cluster| {
        cluster.set_down(true);
        cluster.set_down(false);
    }];
    let mut written = 0;
    for round in 0..12 {
        harness.write("p", written..written + 500);
        written += 500;
        faults[round % 3](&harness.cluster);
        harness.write("p", written..written + 7);
        written += 7;
        harness.wait_for_lines(written as usize).await;
    }
    harness.exit("p").await;
    harness.wait_for_ended(1).await[0].assert_whole(0..written);
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outages_of_api_kubelet_and_runtime_are_retried() {
    let harness = Harness::new().await;
    harness.pod("p", RestartPolicy::Never).await;
    let collector = harness.collect().await;
    let duration = std::time::Duration::from_millis(700);
    let mut written = 0;
    for fault in [
        FaultKind::ApiDown { duration },
        FaultKind::KubeletDown { duration },
        FaultKind::RuntimeDown { duration },
    ] {
        harness.write("p", written..written + 50);
        harness.cluster.cause(fault);
        harness.cluster.break_streams();
        harness.write("p", written + 50..written + 100);
        written += 100;
        harness.wait_for_lines(written as usize).await;
    }
    harness.wait_for_lines(written as usize).await.assert_whole(0..written);
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_collector_resumes_without_gaps_or_repeats() {
    let harness = Harness::new().await;
    harness.pod("p", RestartPolicy::Never).await;
    let mut written = 0;
    for round in 0..8 {
        let collector = harness.collect().await;
        harness.write("p", written..written + 2000);
        written += 2000;
        // With everything published in even rounds, in the middle of publishing in odd ones.
        if round % 2 == 0 {
            harness.wait_for_lines(written as usize).await;
        } else {
            harness.wait_for_lines(written as usize - 1500).await;
        }
        collector.kill().await;
        harness.write("p", written..written + 100);
        written += 100;
    }
    let collector = harness.collect().await;
    harness.wait_for_lines(written as usize).await;
    harness.exit("p").await;
    harness.wait_for_ended(1).await[0].assert_whole(0..written);
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_collector_has_published_what_it_read_and_resumes_later() {
    let harness = Harness::new().await;
    harness.pod("p", RestartPolicy::Never).await;
    let collector = harness.collect().await;
    harness.write("p", 0..300);
    harness.wait_for_lines(300).await;
    collector.stop().await;
    harness.write("p", 300..600);
    let collector = harness.collect().await;
    harness.wait_for_lines(600).await.assert_whole(0..600);
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_instance_of_a_crash_loop_is_a_separate_stream() {
    let harness = Harness::new().await;
    harness.pod("p", RestartPolicy::Always).await;
    either_source::instances_are_separate_streams(harness).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_excluded_pod_is_skipped_at_once_with_a_message_and_without_a_gap() {
    let harness = Harness::new().await;
    harness.pod("p", RestartPolicy::Always).await;
    // The follower stops reading before it sends the message.
    let dropped = async |_| {};
    either_source::exclusion_takes_effect_at_once(harness, dropped, collector::Metrics::default()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_not_yet_reported_by_the_watch_does_not_mix_instances() {
    let harness = Harness::new().await;
    harness.pod("p", RestartPolicy::Always).await;
    let collector = harness.collect().await;
    harness.write("p", 0..10);
    harness.wait_for_lines(10).await;
    harness.gate.pods_unavailable.store(true, Ordering::SeqCst);
    harness.write("p", 10..20);
    harness.wait_for_lines(20).await;
    harness.cluster.break_streams();
    harness.exit("p").await;
    in_time(harness.cluster.wait_running("app", "p", "c")).await.unwrap();
    harness.write("p", 100..110);
    harness.cluster.break_streams();
    // The log is another instance's now; only the pod reveals it.
    harness.wait_for_log_requests(3).await;
    harness.gate.pods_unavailable.store(false, Ordering::SeqCst);
    let streams = harness
        .wait_for("both instances", |streams| {
            streams.iter().map(|stream| stream.texts.len()).sum::<usize>() >= 30
        })
        .await;
    let (old, new): (Vec<&StreamRead>, Vec<&StreamRead>) =
        streams.iter().partition(|stream| stream.texts[0] == "line 0");
    old[0].assert_whole(0..20);
    let texts: Vec<_> = (100..110).map(|n| format!("line {n}")).collect();
    assert_eq!(new[0].texts, texts);
    // It started while the watch was unavailable, so that its log could have been rotated.
    assert!(
        new[0]
            .recorded_gaps
            .iter()
            .all(|gap| *gap == (0, 0, GapReason::Suspected))
    );
    assert_eq!(streams.len(), 2);
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_completed_container_is_not_read_again_after_a_restart() {
    let harness = Harness::new().await;
    harness.pod("p", RestartPolicy::Never).await;
    harness.write("p", 0..10);
    harness.exit("p").await;
    for _ in 0..2 {
        let collector = harness.collect().await;
        harness.wait_for_ended(1).await[0].assert_whole(0..10);
        collector.stop().await;
    }
    assert_eq!(harness.streams().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_pod_is_read_to_its_end() {
    let harness = Harness::new().await;
    harness.pod("p", RestartPolicy::Never).await;
    let collector = harness.collect().await;
    harness.write("p", 0..200);
    harness.cluster.delete_pod("app", "p", Some(1)).unwrap();
    let streams = harness.wait_for_ended(1).await;
    streams[0].assert_whole(0..200);
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_deleted_while_the_collector_was_stopped_ends_with_a_gap() {
    let harness = Harness::new().await;
    harness.pod("p", RestartPolicy::Never).await;
    let collector = harness.collect().await;
    harness.write("p", 0..20);
    harness.wait_for_lines(20).await;
    collector.kill().await;
    harness.write("p", 20..30);
    harness.cluster.delete_pod("app", "p", Some(0)).unwrap();
    in_time(harness.cluster.wait_gone("app", "p")).await.unwrap();
    let collector = harness.collect().await;
    let streams = harness.wait_for_ended(1).await;
    assert_eq!(streams[0].texts.len(), 20);
    assert_eq!(streams[0].recorded_gaps, [(20, 0, GapReason::Suspected)]);
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_rotated_away_while_the_collector_was_stopped_are_a_gap() {
    let harness = Harness::new().await;
    harness.pod("p", RestartPolicy::Never).await;
    let collector = harness.collect().await;
    harness.write("p", 0..100);
    harness.wait_for_lines(100).await;
    collector.kill().await;
    harness.rotate("p").await;
    harness.write("p", 0..10);
    let collector = harness.collect().await;
    let streams = harness
        .wait_for("the newest line", |streams| {
            streams.len() == 2
                && streams
                    .iter()
                    .any(|stream| stream.texts.last().is_some_and(|text| text == "line 9"))
        })
        .await;
    let (old, new): (Vec<&StreamRead>, Vec<&StreamRead>) = streams.iter().partition(|stream| stream.ended);
    assert_eq!(
        (old[0].texts.len(), &old[0].recorded_gaps[..]),
        (100, &[(100, 0, GapReason::Suspected)][..])
    );
    new[0].assert_no_gaps();
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_accepted_without_a_response_is_neither_lost_nor_repeated() {
    for rotated in [false, true] {
        let harness = Harness::new().await;
        harness.pod("p", RestartPolicy::Never).await;
        let accepted = either_source::kill_with_unconfirmed_batches(&harness).await;
        if !rotated {
            let collector = harness.collect().await;
            harness.wait_for_lines(200).await.assert_whole(0..200);
            collector.stop().await;
            continue;
        }
        harness.rotate("p").await;
        let collector = harness.collect().await;
        let streams = harness
            .wait_for("the old stream's end", |streams| {
                streams.iter().any(|stream| stream.ended)
            })
            .await;
        let old = streams.iter().find(|stream| stream.ended).unwrap();
        assert_eq!((old.texts.len(), &old.silent_gaps[..]), (accepted, &[][..]));
        assert_eq!(old.recorded_gaps, [(accepted as u64, 0, GapReason::Suspected)]);
        collector.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unavailable_bus_does_not_block_reading() {
    let harness = Harness::new().await;
    harness.pod("p", RestartPolicy::Never).await;
    let collector = harness.collect().await;
    harness.write("p", 0..10);
    harness.wait_for_lines(10).await;
    harness.bus.unavailable.store(true, Ordering::SeqCst);
    // More than is buffered in memory.
    let long = "x".repeat(2000);
    for _ in 0..4 {
        harness
            .cluster
            .write_lines("app", "p", "c", (0..1000).map(|_| &long))
            .unwrap();
        tokio::task::yield_now().await;
    }
    harness.bus.unavailable.store(false, Ordering::SeqCst);
    harness.wait_for_lines(4010).await.assert_no_gaps();
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_permanently_rejected_batch_becomes_a_gap() {
    let harness = Harness::new().await;
    harness.pod("p", RestartPolicy::Never).await;
    let collector = harness.collect().await;
    harness.write("p", 0..3);
    harness.wait_for_lines(3).await;
    *harness.bus.refuse_with.lock().unwrap() = Some("poison".to_owned());
    harness.cluster.write_line("app", "p", "c", "poison").unwrap();
    let lost = harness
        .wait_for("a gap", |streams| {
            streams.iter().any(|stream| !stream.recorded_gaps.is_empty())
        })
        .await;
    assert_eq!(lost[0].recorded_gaps, [(3, 1, GapReason::Refused)]);
    harness.write("p", 3..4);
    let stream = harness.wait_for_lines(4).await;
    assert_eq!((stream.seqs, stream.silent_gaps), (vec![0, 1, 2, 4], vec![]));
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_line_is_split_consistently_across_a_restart() {
    let harness = Harness::new().await;
    harness.pod("p", RestartPolicy::Never).await;
    either_source::long_line_survives_a_kill(harness).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn equal_timestamps_and_texts_are_distinguished() {
    let harness = Harness::new().await;
    harness.pod("p", RestartPolicy::Never).await;
    let collector = harness.collect().await;
    let time = harness.cluster.write_line("app", "p", "c", "same").unwrap();
    for n in 2..8 {
        harness.cluster.write_line_at("app", "p", "c", time, "same").unwrap();
        harness.wait_for_lines(n).await;
        harness.cluster.break_streams();
    }
    let stream = harness.wait_for_lines(7).await;
    assert_eq!(stream.texts, ["same"; 7]);
    stream.assert_no_gaps();
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_exists_before_the_first_line() {
    use bus::Bus;
    let harness = Harness::new().await;
    let collector = harness.collect().await;
    let mut plan = kubesim::PodPlan::silent("app", "p", "c");
    plan.containers[0].waiting = Some("ErrImagePull".to_owned());
    harness.cluster.create_pod(&plan).unwrap();
    let made = async {
        while harness.bus.apps().await.unwrap().is_empty() {
            tokio::task::yield_now().await
        }
    };
    in_time(made).await;
    collector.stop().await;
}
