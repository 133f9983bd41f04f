//! Guarantees of the collector with `Source::Files`, against a simulated node that writes and
//! rotates files as a real one does.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests use the operating system directly"
)]
#![allow(clippy::unwrap_used, reason = "a helper's panic fails its test")]

mod either_source;
mod kills;
mod node_files;
mod recorded;
mod support;

use std::{fs, sync::atomic::Ordering};

use bus::{Fd, GapReason};
use kubesim::{RestartPolicy, Scenario};
use node_files::{dir, names, with_pod, with_pod_keeping};
use support::{Harness, MetricsProbe, StreamRead, in_time};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_line_is_read_once_and_outputs_are_separate_streams() {
    let scenario = Scenario::from_toml(
        r#"
        [[pods]]
        namespace = "app"
        name = "web"
        replicas = 3
        [[pods.containers]]
        name = "a"
        lines = 3000
        rate = 0
        text = "line {seq}"
        stderr_every = 3
        [[pods.containers]]
        name = "b"
        lines = 40
        rate = 100
        text = "line {seq}"
        "#,
    )
    .unwrap();
    let harness = Harness::with_files(scenario).await;
    let collector = harness.collect().await;
    for stream in harness.wait_for_ended(9).await {
        let has: Box<dyn Fn(&u32) -> bool> = match (stream.process.ends_with("/a"), stream.stream.contains(":err/")) {
            (true, true) => Box::new(|n| n % 3 == 2),
            (true, false) => Box::new(|n| n % 3 != 2),
            (false, is_err) => {
                assert!(!is_err, "an output without lines has no stream");
                Box::new(|n| *n < 40)
            }
        };
        let expected: Vec<_> = (0..3000).filter(has).map(|n| format!("line {n}")).collect();
        assert_eq!(stream.texts, expected);
        stream.assert_no_gaps();
    }
    assert!(!harness.bus.overlapped.load(Ordering::SeqCst));
    assert_eq!(collector.progress.unrecognized_lines(), 0);
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_are_read_immediately_and_the_last_needs_no_newline() {
    let harness = with_pod(RestartPolicy::Never).await;
    harness.write("p", 0..100);
    let collector = harness.collect().await;
    harness.wait_for_lines(100).await;
    for n in 100..110 {
        harness.write("p", n..n + 1);
        harness.wait_for_lines(n as usize + 1).await;
    }
    harness.cluster.write_unterminated("app", "p", "c", "line 110").unwrap();
    harness.exit("p").await;
    harness.wait_for_ended(1).await[0].assert_whole(0..111);
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_rotate_at_full_speed_have_no_gaps() {
    let scenario = Scenario::from_toml(
        r#"
        [log_files]
        max_size = 400000
        max_files = 1000
        check = "20ms"
        [[pods]]
        namespace = "app"
        name = "loud"
        [[pods.containers]]
        name = "c"
        lines = 200000
        rate = 0
        size = 80
        text = "{seq}"
        stderr_every = 50
        "#,
    )
    .unwrap();
    let harness = Harness::with_files(scenario).await;
    let collector = harness.collect().await;
    let streams = harness.wait_for_ended(2).await;
    assert!(names(&harness).len() > 3, "files were rotated");
    for stream in streams {
        let is_err = stream.stream.contains(":err/");
        let numbers = stream.texts.iter().map(|text| text.split(' ').next().unwrap());
        let numbers: Vec<u32> = numbers.map(|number| number.parse().unwrap()).collect();
        assert!(numbers == (0..200_000).filter(|n| (n % 50 == 49) == is_err).collect::<Vec<_>>());
        stream.assert_no_gaps();
    }
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_collector_resumes_exactly_across_rotation_and_compression() {
    let harness = with_pod(RestartPolicy::Never).await;
    let mut written = 0;
    for round in 0..8_usize {
        let collector = harness.collect().await;
        harness.write("p", written..written + 2000);
        if round % 3 == 1 {
            harness.rotate_file();
        }
        harness.write("p", written + 2000..written + 2100);
        written += 2100;
        // With everything published in even rounds, in the middle of publishing in odd ones.
        let streams = if round % 2 == 0 { written } else { written - 1500 };
        harness.wait_for_lines(streams as usize).await;
        collector.kill().await;
        harness.write("p", written..written + 100);
        for n in 1..=round as u32 % 4 {
            harness.rotate_file();
            harness.write("p", written + n * 100..written + n * 100 + 100);
        }
        written += 100 + round as u32 % 4 * 100;
    }
    assert!(names(&harness).iter().any(|name| name.ends_with(".gz")));
    let collector = harness.collect().await;
    harness.wait_for_lines(written as usize).await;
    harness.exit("p").await;
    harness.wait_for_ended(1).await[0].assert_whole(0..written);
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_split_by_a_rotation_is_joined_across_a_kill() {
    let part = "x".repeat(20_000);
    for kill_at in 0..4 {
        let harness = with_pod(RestartPolicy::Never).await;
        let mut collector = harness.collect().await;
        harness.write("p", 0..3);
        harness.cluster.write_stderr("app", "p", "c", "beside").unwrap();
        harness.wait_for_lines_of(Fd::Out, 3).await;
        let steps: [&dyn Fn(); 4] = [
            &|| assert!(harness.cluster.write_unterminated("app", "p", "c", &part).is_ok()),
            &|| harness.rotate_file(),
            &|| harness.rotate_file(),
            &|| assert!(harness.cluster.write_line("app", "p", "c", " end").is_ok()),
        ];
        for (at, step) in steps.iter().enumerate() {
            step();
            if at == kill_at {
                collector.kill().await;
                collector = harness.collect().await;
            }
        }
        harness.write("p", 4..5);
        let stream = harness.wait_for_lines_of(Fd::Out, 5).await.remove(0);
        assert_eq!(stream.texts.len(), 5);
        assert!(
            stream.texts[3] == format!("{part} end"),
            "{} bytes",
            stream.texts[3].len()
        );
        assert_eq!(stream.texts[4], "line 4");
        stream.assert_no_gaps();
        harness.wait_for_lines_of(Fd::Err, 1).await[0].assert_no_gaps();
        collector.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_output_with_little_data_is_neither_lost_nor_repeated() {
    let harness = with_pod_keeping(3, RestartPolicy::Never).await;
    let mut collector = harness.collect().await;
    harness.cluster.write_stderr("app", "p", "c", "first").unwrap();
    for round in 0..6 {
        // More than is read again after a restart.
        let long = "x".repeat(1000);
        harness
            .cluster
            .write_lines("app", "p", "c", (0..1200).map(|_| &long))
            .unwrap();
        harness.wait_for_lines_of(Fd::Out, 1200 * (round + 1)).await;
        harness.rotate_file();
        if round % 2 == 1 {
            collector.kill().await;
            collector = harness.collect().await;
        }
    }
    harness.cluster.write_stderr("app", "p", "c", "second").unwrap();
    let err = harness.wait_for_lines_of(Fd::Err, 2).await;
    assert_eq!(
        (err.len(), &err[0].texts[..]),
        (1, &["first".to_owned(), "second".to_owned()][..])
    );
    err[0].assert_no_gaps();
    let out = harness.wait_for_lines_of(Fd::Out, 7200).await;
    assert_eq!((out.len(), out[0].texts.len()), (1, 7200));
    out[0].assert_no_gaps();
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_output_that_begins_after_a_restart_is_not_repeated_after_a_kill() {
    let harness = with_pod(RestartPolicy::Never).await;
    let collector = harness.collect().await;
    harness.write("p", 0..10);
    harness.wait_for_lines(10).await;
    collector.stop().await;
    let collector = harness.collect().await;
    harness.cluster.write_stderr("app", "p", "c", "line 0").unwrap();
    harness.wait_for_lines_of(Fd::Err, 1).await;
    collector.kill().await;
    let collector = harness.collect().await;
    harness.write("p", 10..20);
    harness.wait_for_lines_of(Fd::Out, 20).await[0].assert_whole(0..20);
    harness.wait_for_lines_of(Fd::Err, 1).await[0].assert_whole(0..1);
    assert_eq!(harness.streams().await.len(), 2);
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_removed_while_the_collector_was_stopped_are_one_gap() {
    let harness = with_pod_keeping(2, RestartPolicy::Never).await;
    let collector = harness.collect().await;
    harness.write("p", 0..100);
    harness.wait_for_lines(100).await;
    collector.kill().await;
    harness.write("p", 100..150);
    for n in 2..5 {
        harness.rotate_file();
        harness.write("p", n * 100..n * 100 + 100);
    }
    for _ in 0..2 {
        let collector = harness.collect().await;
        let streams = harness
            .wait_for("the newest line", |streams| {
                streams
                    .iter()
                    .any(|stream| stream.texts.last().is_some_and(|text| text == "line 499"))
            })
            .await;
        let with_lines = streams.iter().filter(|stream| !stream.texts.is_empty());
        let (old, new): (Vec<&StreamRead>, Vec<&StreamRead>) = with_lines.partition(|stream| stream.texts.len() == 100);
        assert_eq!((old.len(), new.len()), (1, 1));
        // The node keeps the last two files.
        let kept: Vec<String> = (300..500).map(|n| format!("line {n}")).collect();
        assert_eq!(new[0].texts, kept);
        // Whether the bus had confirmed the lines before the kill decides in which stream it is.
        let gaps = old[0].recorded_gaps.iter().chain(&new[0].recorded_gaps);
        let reasons: Vec<GapReason> = gaps.map(|(_, _, reason)| reason.clone()).collect();
        assert_eq!(reasons, [GapReason::Suspected, GapReason::MayRepeat]);
        collector.kill().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gap_is_reported_before_the_container_prints_again() {
    let harness = with_pod(RestartPolicy::Never).await;
    let collector = harness.collect().await;
    harness.write("p", 0..10);
    harness.wait_for_lines(10).await;
    collector.stop().await;
    fs::remove_file(dir(&harness).join("0.log")).unwrap();
    // The node creates the file again.
    harness.rotate_file();
    let collector = harness.collect().await;
    let streams = harness
        .wait_for("the gap", |streams| streams.iter().any(|stream| stream.ended))
        .await;
    let old = streams.iter().find(|stream| stream.ended).unwrap();
    assert_eq!(
        (old.texts.len(), &old.recorded_gaps[..]),
        (10, &[(10, 0, GapReason::Suspected)][..])
    );
    harness.write("p", 10..20);
    harness.wait_for_lines_of(Fd::Out, 20).await;
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_removed_during_an_outage_are_gaps_in_their_place() {
    let harness = with_pod_keeping(2, RestartPolicy::Never).await;
    let collector = harness.collect().await;
    harness.write("p", 0..10);
    harness.wait_for_lines(10).await;
    harness.bus.unavailable.store(true, Ordering::SeqCst);
    // Each file exceeds the memory limit, and there are more files than are held open.
    let long = "x".repeat(10_000);
    for file in 0..14 {
        let texts = (0..500).map(|_| format!("{file} {long}"));
        harness.cluster.write_lines("app", "p", "c", texts).unwrap();
        harness.rotate_file();
    }
    harness.cluster.write_line("app", "p", "c", "last").unwrap();
    harness.bus.unavailable.store(false, Ordering::SeqCst);
    let streams = harness
        .wait_for("the last line", |streams| {
            streams
                .iter()
                .any(|stream| stream.texts.last().is_some_and(|text| text == "last"))
        })
        .await;
    assert_eq!(streams.len(), 1, "the stream continues");
    let stream = &streams[0];
    assert_eq!(stream.silent_gaps, []);
    let recorded = stream
        .recorded_gaps
        .iter()
        .all(|(_, lines, reason)| (*lines, reason) == (0, &GapReason::Rotated));
    assert!(recorded, "{:?}", stream.recorded_gaps);
    // Files are either complete or absent, and absent ones have a gap at their position.
    let files: Vec<usize> = stream.texts[10..stream.texts.len() - 1]
        .iter()
        .map(|text| text.split(' ').next().unwrap().parse().unwrap())
        .collect();
    for (at, pair) in files.windows(2).enumerate() {
        let seq = at as u64 + 11;
        let is_recorded = stream.recorded_gaps.iter().any(|(gap, _, _)| *gap == seq);
        assert!(
            pair[1] == pair[0] || (pair[1] == pair[0] + 1 && seq % 500 == 10) || is_recorded,
            "{pair:?} at {seq}"
        );
    }
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_truncated_file_is_a_suspected_gap_and_is_read_from_its_start() {
    let harness = with_pod(RestartPolicy::Never).await;
    let collector = harness.collect().await;
    harness.write("p", 0..100);
    harness.wait_for_lines(100).await;
    let file = dir(&harness).join("0.log");
    fs::write(&file, "2026-11-23T08:46:44.9594474Z stdout F line 100\n").unwrap();
    let streams = harness
        .wait_for("the new line", |streams| {
            streams.iter().any(|stream| stream.texts.len() == 101)
        })
        .await;
    // The lines can have been of either output.
    let (out, err): (Vec<&StreamRead>, Vec<&StreamRead>) = streams.iter().partition(|stream| !stream.texts.is_empty());
    assert_eq!(
        (out[0].texts[100].as_str(), &out[0].recorded_gaps[..]),
        ("line 100", &[(100, 0, GapReason::Suspected)][..])
    );
    assert_eq!(err[0].recorded_gaps, [(0, 0, GapReason::Suspected)]);
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_excluded_pod_is_skipped_at_once_with_a_message_and_without_a_gap() {
    let harness = with_pod(RestartPolicy::Always).await;
    let counted = MetricsProbe::new();
    let dropped = async |lines| {
        let metric = "tributary_collector_excluded_lines_total";
        counted.wait_for(metric, f64::from(lines)).await;
    };
    either_source::exclusion_takes_effect_at_once(harness, dropped, counted.metrics.clone()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_instance_of_a_crash_loop_is_read_from_its_own_file() {
    let harness = with_pod(RestartPolicy::Always).await;
    either_source::instances_are_separate_streams(harness).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_completed_container_is_not_read_again_after_a_restart() {
    let harness = with_pod(RestartPolicy::Never).await;
    harness.write("p", 0..10);
    harness.cluster.write_stderr("app", "p", "c", "line 0").unwrap();
    harness.exit("p").await;
    for _ in 0..2 {
        let collector = harness.collect().await;
        harness.wait_for_ended(2).await;
        collector.stop().await;
    }
    assert_eq!(harness.streams().await.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_of_a_deleted_pod_are_read_to_their_end() {
    let harness = with_pod(RestartPolicy::Never).await;
    let collector = harness.collect().await;
    harness.write("p", 0..20);
    harness.wait_for_lines(20).await;
    collector.kill().await;
    harness.write("p", 20..30);
    harness.cluster.write_stderr("app", "p", "c", "line 0").unwrap();
    harness.cluster.delete_pod("app", "p", Some(0)).unwrap();
    in_time(harness.cluster.wait_gone("app", "p")).await.unwrap();
    let collector = harness.collect().await;
    let streams = harness.wait_for_ended(2).await;
    let (out, err): (Vec<&StreamRead>, Vec<&StreamRead>) =
        streams.iter().partition(|stream| stream.stream.contains(":out/"));
    out[0].assert_whole(0..30);
    err[0].assert_whole(0..1);
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_pod_without_files_ends_with_a_gap() {
    let harness = with_pod(RestartPolicy::Never).await;
    let collector = harness.collect().await;
    harness.write("p", 0..20);
    harness.wait_for_lines(20).await;
    collector.kill().await;
    harness.cluster.delete_pod("app", "p", Some(0)).unwrap();
    in_time(harness.cluster.wait_gone("app", "p")).await.unwrap();
    fs::remove_dir_all(harness.pod_log_dir.as_ref().unwrap()).unwrap();
    let collector = harness.collect().await;
    // The last lines can have been of either output.
    let streams = harness.wait_for_ended(2).await;
    let mut gaps: Vec<_> = streams
        .iter()
        .map(|stream| (stream.texts.len(), stream.recorded_gaps.clone()))
        .collect();
    gaps.sort_by_key(|(lines, _)| *lines);
    assert_eq!(
        gaps,
        [
            (0, vec![(0, 0, GapReason::Suspected)]),
            (20, vec![(20, 0, GapReason::Suspected)])
        ]
    );
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_was_never_seen_is_suspected_after_its_pod_is_gone() {
    let harness = with_pod(RestartPolicy::Always).await;
    let collector = harness.collect().await;
    harness.write("p", 0..10);
    harness.wait_for_lines(10).await;
    collector.kill().await;
    harness.exit("p").await;
    in_time(harness.cluster.wait_running("app", "p", "c")).await.unwrap();
    harness.write("p", 10..20);
    harness.cluster.delete_pod("app", "p", Some(0)).unwrap();
    in_time(harness.cluster.wait_gone("app", "p")).await.unwrap();
    let collector = harness.collect().await;
    // That of the first instance, and one of each output for the second.
    let streams = harness.wait_for_ended(3).await;
    let (seen, unseen): (Vec<&StreamRead>, Vec<&StreamRead>) =
        streams.iter().partition(|stream| !stream.texts.is_empty());
    seen[0].assert_whole(0..10);
    for stream in unseen {
        assert_eq!(stream.recorded_gaps, [(0, 0, GapReason::Suspected)]);
    }
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changing_the_source_ends_streams_and_starts_new_ones() {
    let mut harness = with_pod(RestartPolicy::Never).await;
    let collector = harness.collect().await;
    harness.write("p", 0..20);
    harness.wait_for_lines(20).await;
    collector.stop().await;
    let files = harness.pod_log_dir.take();
    let collector = harness.collect().await;
    let streams = harness
        .wait_for("both streams", |streams| {
            streams.len() == 2
                && streams.iter().any(|stream| stream.ended)
                && streams.iter().all(|stream| stream.texts.len() == 20)
        })
        .await;
    assert!(
        streams
            .iter()
            .all(|stream| stream.stream.contains(":out/") == stream.ended)
    );
    collector.stop().await;
    harness.pod_log_dir = files;
    let collector = harness.collect().await;
    harness
        .wait_for("two ended streams and a third one", |streams| {
            streams.len() == 3 && streams.iter().filter(|stream| stream.ended).count() == 2
        })
        .await;
    collector.stop().await;
}
