//! What the collector promises, against a simulated cluster and the embedded bus.

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
use support::{Seen, Stage, soon};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_line_of_every_container_comes_once() {
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
    let stage = Stage::playing(scenario).await;
    let collector = stage.collect().await;
    for seen in stage.until_ended(8).await {
        let lines = if seen.process.ends_with("/a") { 3000 } else { 40 };
        seen.assert_whole(0..lines);
    }
    assert!(
        !stage.bus.overlapped.load(Ordering::SeqCst),
        "one publish in flight a stream"
    );
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_container_is_read_from_its_beginning_and_live() {
    let stage = Stage::new().await;
    stage.pod("p", RestartPolicy::Never).await;
    stage.write("p", 0..100);
    let collector = stage.collect().await;
    stage.until_lines(100).await;
    for n in 100..110 {
        stage.write("p", n..n + 1);
        stage.until_lines(n as usize + 1).await;
    }
    stage.cluster.write_unterminated("app", "p", "c", "line 110").unwrap();
    stage.exit("p").await;
    let seen = stage.until_ended(1).await;
    seen[0].assert_whole(0..111);
    assert_eq!(seen[0].process, "p");
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_and_ended_streams_are_joined_exactly() {
    let stage = Stage::new().await;
    stage.pod("p", RestartPolicy::Never).await;
    let collector = stage.collect().await;
    let faults: [fn(&Cluster); 3] = [Cluster::break_streams, Cluster::end_streams, |cluster| {
        cluster.set_down(true);
        cluster.set_down(false);
    }];
    let mut written = 0;
    for round in 0..12 {
        stage.write("p", written..written + 500);
        written += 500;
        faults[round % 3](&stage.cluster);
        stage.write("p", written..written + 7);
        written += 7;
        stage.until_lines(written as usize).await;
    }
    stage.exit("p").await;
    stage.until_ended(1).await[0].assert_whole(0..written);
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_of_api_kubelet_or_runtime_is_waited_out() {
    let stage = Stage::new().await;
    stage.pod("p", RestartPolicy::Never).await;
    let collector = stage.collect().await;
    let duration = std::time::Duration::from_millis(700);
    let mut written = 0;
    for fault in [
        FaultKind::ApiDown { duration },
        FaultKind::KubeletDown { duration },
        FaultKind::RuntimeDown { duration },
    ] {
        stage.write("p", written..written + 50);
        stage.cluster.cause(fault);
        stage.cluster.break_streams();
        stage.write("p", written + 50..written + 100);
        written += 100;
        stage.until_lines(written as usize).await;
    }
    stage.until_lines(written as usize).await.assert_whole(0..written);
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_collector_goes_on_without_hole_or_repeat() {
    let stage = Stage::new().await;
    stage.pod("p", RestartPolicy::Never).await;
    let mut written = 0;
    for round in 0..8 {
        let collector = stage.collect().await;
        stage.write("p", written..written + 2000);
        written += 2000;
        // Now with all published, now in the middle of it.
        if round % 2 == 0 {
            stage.until_lines(written as usize).await;
        } else {
            stage.until_lines(written as usize - 1500).await;
        }
        collector.kill().await;
        stage.write("p", written..written + 100);
        written += 100;
    }
    let collector = stage.collect().await;
    stage.until_lines(written as usize).await;
    stage.exit("p").await;
    stage.until_ended(1).await[0].assert_whole(0..written);
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_collector_has_published_what_it_read_and_goes_on_later() {
    let stage = Stage::new().await;
    stage.pod("p", RestartPolicy::Never).await;
    let collector = stage.collect().await;
    stage.write("p", 0..300);
    stage.until_lines(300).await;
    collector.stop().await;
    stage.write("p", 300..600);
    let collector = stage.collect().await;
    stage.until_lines(600).await.assert_whole(0..600);
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_instance_of_a_crash_loop_is_a_stream_of_its_own() {
    let stage = Stage::new().await;
    stage.pod("p", RestartPolicy::Always).await;
    either_source::each_instance_is_a_stream_of_its_own(stage).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_that_the_watch_could_not_show_yet_mixes_no_instances() {
    let stage = Stage::new().await;
    stage.pod("p", RestartPolicy::Always).await;
    let collector = stage.collect().await;
    stage.write("p", 0..10);
    stage.until_lines(10).await;
    stage.gate.blind.store(true, Ordering::SeqCst);
    stage.write("p", 10..20);
    stage.until_lines(20).await;
    stage.cluster.break_streams();
    stage.exit("p").await;
    soon(stage.cluster.wait_running("app", "p", "c")).await.unwrap();
    stage.write("p", 100..110);
    stage.cluster.break_streams();
    // Now its log is another's, and only a look at the pod can tell.
    stage.until_asked(3).await;
    stage.gate.blind.store(false, Ordering::SeqCst);
    let seen = stage
        .until("both instances", |seen| {
            seen.iter().map(|seen| seen.texts.len()).sum::<usize>() >= 30
        })
        .await;
    let (old, new): (Vec<&Seen>, Vec<&Seen>) = seen.iter().partition(|seen| seen.texts[0] == "line 0");
    old[0].assert_whole(0..20);
    new[0].assert_whole(100..110);
    assert_eq!(seen.len(), 2);
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_completed_container_is_not_read_again_after_a_restart() {
    let stage = Stage::new().await;
    stage.pod("p", RestartPolicy::Never).await;
    stage.write("p", 0..10);
    stage.exit("p").await;
    for _ in 0..2 {
        let collector = stage.collect().await;
        stage.until_ended(1).await[0].assert_whole(0..10);
        collector.stop().await;
    }
    assert_eq!(stage.seen().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_pod_s_lines_are_all_there_and_its_stream_ends() {
    let stage = Stage::new().await;
    stage.pod("p", RestartPolicy::Never).await;
    let collector = stage.collect().await;
    stage.write("p", 0..200);
    stage.cluster.delete_pod("app", "p", Some(1)).unwrap();
    let seen = stage.until_ended(1).await;
    seen[0].assert_whole(0..200);
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_went_while_the_collector_was_away_is_told_and_ended() {
    let stage = Stage::new().await;
    stage.pod("p", RestartPolicy::Never).await;
    let collector = stage.collect().await;
    stage.write("p", 0..20);
    stage.until_lines(20).await;
    collector.kill().await;
    stage.write("p", 20..30);
    stage.cluster.delete_pod("app", "p", Some(0)).unwrap();
    soon(stage.cluster.wait_gone("app", "p")).await.unwrap();
    let collector = stage.collect().await;
    let seen = stage.until_ended(1).await;
    assert_eq!(seen[0].texts.len(), 20);
    assert_eq!(seen[0].losses, [(20, 0, GapReason::Gone)]);
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_that_rotated_away_while_the_collector_was_away_are_told() {
    let stage = Stage::new().await;
    stage.pod("p", RestartPolicy::Never).await;
    let collector = stage.collect().await;
    stage.write("p", 0..100);
    stage.until_lines(100).await;
    collector.kill().await;
    stage.rotate("p").await;
    stage.write("p", 0..10);
    let collector = stage.collect().await;
    let seen = stage
        .until("the newest line", |seen| {
            seen.len() == 2
                && seen
                    .iter()
                    .any(|seen| seen.texts.last().is_some_and(|text| text == "line 9"))
        })
        .await;
    let (old, new): (Vec<&Seen>, Vec<&Seen>) = seen.iter().partition(|seen| seen.ended);
    assert_eq!(
        (old[0].texts.len(), &old[0].losses[..]),
        (100, &[(100, 0, GapReason::Away)][..])
    );
    new[0].assert_nothing_missing();
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_whose_acceptance_was_never_heard_of_is_neither_lost_nor_repeated() {
    for rotated in [false, true] {
        let stage = Stage::new().await;
        stage.pod("p", RestartPolicy::Never).await;
        let accepted = either_source::kill_before_it_hears(&stage).await;
        if !rotated {
            let collector = stage.collect().await;
            stage.until_lines(200).await.assert_whole(0..200);
            collector.stop().await;
            continue;
        }
        stage.rotate("p").await;
        let collector = stage.collect().await;
        let seen = stage
            .until("the old stream's end", |seen| seen.iter().any(|seen| seen.ended))
            .await;
        let old = seen.iter().find(|seen| seen.ended).unwrap();
        assert_eq!((old.texts.len(), &old.gaps[..]), (accepted, &[][..]));
        assert_eq!(old.losses, [(accepted as u64, 0, GapReason::Away)]);
        collector.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bus_that_is_away_holds_nothing_up_for_good() {
    let stage = Stage::new().await;
    stage.pod("p", RestartPolicy::Never).await;
    let collector = stage.collect().await;
    stage.write("p", 0..10);
    stage.until_lines(10).await;
    stage.bus.away.store(true, Ordering::SeqCst);
    // Past what is held in memory.
    let long = "x".repeat(2000);
    for _ in 0..4 {
        stage
            .cluster
            .write_lines("app", "p", "c", (0..1000).map(|_| &long))
            .unwrap();
        tokio::task::yield_now().await;
    }
    stage.bus.away.store(false, Ordering::SeqCst);
    stage.until_lines(4010).await.assert_nothing_missing();
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_is_refused_for_good_becomes_a_loss() {
    let stage = Stage::new().await;
    stage.pod("p", RestartPolicy::Never).await;
    let collector = stage.collect().await;
    stage.write("p", 0..3);
    stage.until_lines(3).await;
    *stage.bus.refuse_with.lock().unwrap() = Some("poison".to_owned());
    stage.cluster.write_line("app", "p", "c", "poison").unwrap();
    let lost = stage
        .until("a loss", |seen| seen.iter().any(|seen| !seen.losses.is_empty()))
        .await;
    assert_eq!(lost[0].losses, [(3, 1, GapReason::Refused)]);
    stage.write("p", 3..4);
    let seen = stage.until_lines(4).await;
    assert_eq!((seen.seqs, seen.gaps), (vec![0, 1, 2, 4], vec![]));
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_line_comes_whole_in_parts_also_over_a_restart() {
    let stage = Stage::new().await;
    stage.pod("p", RestartPolicy::Never).await;
    either_source::a_long_line_is_whole_over_a_kill(stage).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn equal_timestamps_and_identical_texts_are_told_apart() {
    let stage = Stage::new().await;
    stage.pod("p", RestartPolicy::Never).await;
    let collector = stage.collect().await;
    let time = stage.cluster.write_line("app", "p", "c", "same").unwrap();
    for n in 2..8 {
        stage.cluster.write_line_at("app", "p", "c", time, "same").unwrap();
        stage.until_lines(n).await;
        stage.cluster.break_streams();
    }
    let seen = stage.until_lines(7).await;
    assert_eq!(seen.texts, ["same"; 7]);
    seen.assert_nothing_missing();
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_is_on_the_bus_before_its_first_line() {
    use bus::Bus;
    let stage = Stage::new().await;
    let collector = stage.collect().await;
    let mut plan = kubesim::PodPlan::silent("app", "p", "c");
    plan.containers[0].waiting = Some("ErrImagePull".to_owned());
    stage.cluster.create_pod(&plan).unwrap();
    let made = async {
        while stage.bus.apps().await.unwrap().is_empty() {
            tokio::task::yield_now().await
        }
    };
    soon(made).await;
    collector.stop().await;
}
