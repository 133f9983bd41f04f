//! What the collector promises when it reads the node's files, against a simulated node that writes and rotates them as a real one does.

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
use support::{Seen, Stage, soon};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_line_comes_once_and_the_two_outputs_are_streams_of_their_own() {
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
    let stage = Stage::with_files(scenario).await;
    let collector = stage.collect().await;
    for seen in stage.until_ended(9).await {
        let has: Box<dyn Fn(&u32) -> bool> = match (seen.process.ends_with("/a"), seen.stream.contains(":err/")) {
            (true, true) => Box::new(|n| n % 3 == 2),
            (true, false) => Box::new(|n| n % 3 != 2),
            (false, is_err) => {
                assert!(!is_err, "an output that printed nothing has no stream");
                Box::new(|n| *n < 40)
            }
        };
        let expected: Vec<_> = (0..3000).filter(has).map(|n| format!("line {n}")).collect();
        assert_eq!(seen.texts, expected);
        seen.assert_nothing_missing();
    }
    assert!(!stage.bus.overlapped.load(Ordering::SeqCst));
    assert_eq!(collector.status.foreign_lines(), 0);
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_is_there_as_soon_as_it_is_written_and_the_last_needs_no_newline() {
    let stage = with_pod(RestartPolicy::Never).await;
    stage.write("p", 0..100);
    let collector = stage.collect().await;
    stage.until_lines(100).await;
    for n in 100..110 {
        stage.write("p", n..n + 1);
        stage.until_lines(n as usize + 1).await;
    }
    stage.cluster.write_unterminated("app", "p", "c", "line 110").unwrap();
    stage.exit("p").await;
    stage.until_ended(1).await[0].assert_whole(0..111);
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_missing_where_files_rotate_at_full_speed() {
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
    let stage = Stage::with_files(scenario).await;
    let collector = stage.collect().await;
    let seen = stage.until_ended(2).await;
    assert!(names(&stage).len() > 3, "it was rotated");
    for seen in seen {
        let is_err = seen.stream.contains(":err/");
        let numbers = seen.texts.iter().map(|text| text.split(' ').next().unwrap());
        let numbers: Vec<u32> = numbers.map(|number| number.parse().unwrap()).collect();
        assert!(numbers == (0..200_000).filter(|n| (n % 50 == 49) == is_err).collect::<Vec<_>>());
        seen.assert_nothing_missing();
    }
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_collector_goes_on_exactly_whatever_was_rotated_and_compressed_meanwhile() {
    let stage = with_pod(RestartPolicy::Never).await;
    let mut written = 0;
    for round in 0..8_usize {
        let collector = stage.collect().await;
        stage.write("p", written..written + 2000);
        if round % 3 == 1 {
            stage.rotate_file();
        }
        stage.write("p", written + 2000..written + 2100);
        written += 2100;
        // Now with all published, now in the middle of it.
        let seen = if round % 2 == 0 { written } else { written - 1500 };
        stage.until_lines(seen as usize).await;
        collector.kill().await;
        stage.write("p", written..written + 100);
        for n in 1..=round as u32 % 4 {
            stage.rotate_file();
            stage.write("p", written + n * 100..written + n * 100 + 100);
        }
        written += 100 + round as u32 % 4 * 100;
    }
    assert!(names(&stage).iter().any(|name| name.ends_with(".gz")));
    let collector = stage.collect().await;
    stage.until_lines(written as usize).await;
    stage.exit("p").await;
    stage.until_ended(1).await[0].assert_whole(0..written);
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_that_a_rotation_cut_is_whole_also_over_a_kill() {
    let part = "x".repeat(20_000);
    for kill_at in 0..4 {
        let stage = with_pod(RestartPolicy::Never).await;
        let mut collector = stage.collect().await;
        stage.write("p", 0..3);
        stage.cluster.write_stderr("app", "p", "c", "beside").unwrap();
        stage.until_lines_of(Fd::Out, 3).await;
        let steps: [&dyn Fn(); 4] = [
            &|| assert!(stage.cluster.write_unterminated("app", "p", "c", &part).is_ok()),
            &|| stage.rotate_file(),
            &|| stage.rotate_file(),
            &|| assert!(stage.cluster.write_line("app", "p", "c", " end").is_ok()),
        ];
        for (at, step) in steps.iter().enumerate() {
            step();
            if at == kill_at {
                collector.kill().await;
                collector = stage.collect().await;
            }
        }
        stage.write("p", 4..5);
        let seen = stage.until_lines_of(Fd::Out, 5).await.remove(0);
        assert_eq!(seen.texts.len(), 5);
        assert!(seen.texts[3] == format!("{part} end"), "{} bytes", seen.texts[3].len());
        assert_eq!(seen.texts[4], "line 4");
        seen.assert_nothing_missing();
        stage.until_lines_of(Fd::Err, 1).await[0].assert_nothing_missing();
        collector.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quiet_output_is_neither_lost_nor_repeated_beside_a_loud_one() {
    let stage = with_pod_keeping(3, RestartPolicy::Never).await;
    let mut collector = stage.collect().await;
    stage.cluster.write_stderr("app", "p", "c", "first").unwrap();
    for round in 0..6 {
        // Past what is read again after a restart.
        let long = "x".repeat(1000);
        stage
            .cluster
            .write_lines("app", "p", "c", (0..1200).map(|_| &long))
            .unwrap();
        stage.until_lines_of(Fd::Out, 1200 * (round + 1)).await;
        stage.rotate_file();
        if round % 2 == 1 {
            collector.kill().await;
            collector = stage.collect().await;
        }
    }
    stage.cluster.write_stderr("app", "p", "c", "second").unwrap();
    let err = stage.until_lines_of(Fd::Err, 2).await;
    assert_eq!(
        (err.len(), &err[0].texts[..]),
        (1, &["first".to_owned(), "second".to_owned()][..])
    );
    err[0].assert_nothing_missing();
    let out = stage.until_lines_of(Fd::Out, 7200).await;
    assert_eq!((out.len(), out[0].texts.len()), (1, 7200));
    out[0].assert_nothing_missing();
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_went_while_the_collector_was_away_are_told_once() {
    let stage = with_pod_keeping(2, RestartPolicy::Never).await;
    let collector = stage.collect().await;
    stage.write("p", 0..100);
    stage.until_lines(100).await;
    collector.kill().await;
    stage.write("p", 100..150);
    for n in 2..5 {
        stage.rotate_file();
        stage.write("p", n * 100..n * 100 + 100);
    }
    for _ in 0..2 {
        let collector = stage.collect().await;
        let seen = stage
            .until("the newest line", |seen| {
                seen.iter()
                    .any(|seen| seen.texts.last().is_some_and(|text| text == "line 499"))
            })
            .await;
        let (old, new): (Vec<&Seen>, Vec<&Seen>) = seen.iter().partition(|seen| seen.ended);
        assert_eq!((old.len(), new.len()), (1, 1));
        assert_eq!(old[0].texts.len(), 100);
        assert_eq!(old[0].losses, [(100, 0, GapReason::Away)]);
        // The node has the last two files.
        new[0].assert_whole(300..500);
        collector.kill().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_files_that_go_faster_than_the_bus_takes_them_what_is_not_there_is_told_in_its_place() {
    let stage = with_pod_keeping(2, RestartPolicy::Never).await;
    let collector = stage.collect().await;
    stage.write("p", 0..10);
    stage.until_lines(10).await;
    stage.bus.away.store(true, Ordering::SeqCst);
    // Each file more than is held in memory, and more of them than are held open.
    let long = "x".repeat(10_000);
    for file in 0..14 {
        let texts = (0..500).map(|_| format!("{file} {long}"));
        stage.cluster.write_lines("app", "p", "c", texts).unwrap();
        stage.rotate_file();
    }
    stage.cluster.write_line("app", "p", "c", "last").unwrap();
    stage.bus.away.store(false, Ordering::SeqCst);
    let seen = stage
        .until("the last line", |seen| {
            seen.iter()
                .any(|seen| seen.texts.last().is_some_and(|text| text == "last"))
        })
        .await;
    assert_eq!(seen.len(), 1, "the same stream goes on");
    let seen = &seen[0];
    assert_eq!(seen.gaps, []);
    let told = seen
        .losses
        .iter()
        .all(|(_, lines, reason)| (*lines, reason) == (0, &GapReason::Rotated));
    assert!(told, "{:?}", seen.losses);
    // What is there of a file is all of it, and what is not lies at a loss.
    let files: Vec<usize> = seen.texts[10..seen.texts.len() - 1]
        .iter()
        .map(|text| text.split(' ').next().unwrap().parse().unwrap())
        .collect();
    for (at, pair) in files.windows(2).enumerate() {
        let seq = at as u64 + 11;
        let is_told = seen.losses.iter().any(|(loss, _, _)| *loss == seq);
        assert!(
            pair[1] == pair[0] || (pair[1] == pair[0] + 1 && seq % 500 == 10) || is_told,
            "{pair:?} at {seq}"
        );
    }
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_truncated_file_is_told_and_read_from_its_beginning() {
    let stage = with_pod(RestartPolicy::Never).await;
    let collector = stage.collect().await;
    stage.write("p", 0..100);
    stage.until_lines(100).await;
    let file = dir(&stage).join("0.log");
    fs::write(&file, "2026-11-23T08:46:44.9594474Z stdout F line 100\n").unwrap();
    let seen = stage.until_lines(101).await;
    assert_eq!(
        (seen.texts[100].as_str(), &seen.losses[..]),
        ("line 100", &[(100, 0, GapReason::Rotated)][..])
    );
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_instance_of_a_crash_loop_is_read_from_its_own_file() {
    let stage = with_pod(RestartPolicy::Always).await;
    either_source::each_instance_is_a_stream_of_its_own(stage).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_completed_container_is_not_read_again_after_a_restart() {
    let stage = with_pod(RestartPolicy::Never).await;
    stage.write("p", 0..10);
    stage.cluster.write_stderr("app", "p", "c", "line 0").unwrap();
    stage.exit("p").await;
    for _ in 0..2 {
        let collector = stage.collect().await;
        stage.until_ended(2).await;
        collector.stop().await;
    }
    assert_eq!(stage.seen().await.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_pod_that_went_what_is_still_on_disk_is_read_before_its_end() {
    let stage = with_pod(RestartPolicy::Never).await;
    let collector = stage.collect().await;
    stage.write("p", 0..20);
    stage.until_lines(20).await;
    collector.kill().await;
    stage.write("p", 20..30);
    stage.cluster.write_stderr("app", "p", "c", "line 0").unwrap();
    stage.cluster.delete_pod("app", "p", Some(0)).unwrap();
    soon(stage.cluster.wait_gone("app", "p")).await.unwrap();
    let collector = stage.collect().await;
    let seen = stage.until_ended(2).await;
    let (out, err): (Vec<&Seen>, Vec<&Seen>) = seen.iter().partition(|seen| seen.stream.contains(":out/"));
    out[0].assert_whole(0..30);
    err[0].assert_whole(0..1);
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_pod_whose_files_are_gone_the_end_is_told_to_be_lost() {
    let stage = with_pod(RestartPolicy::Never).await;
    let collector = stage.collect().await;
    stage.write("p", 0..20);
    stage.until_lines(20).await;
    collector.kill().await;
    stage.cluster.delete_pod("app", "p", Some(0)).unwrap();
    soon(stage.cluster.wait_gone("app", "p")).await.unwrap();
    fs::remove_dir_all(stage.pod_log_dir.as_ref().unwrap()).unwrap();
    let collector = stage.collect().await;
    let seen = stage.until_ended(1).await;
    assert_eq!(
        (seen[0].texts.len(), &seen[0].losses[..]),
        (20, &[(20, 0, GapReason::Gone)][..])
    );
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_source_reads_into_other_streams_and_ends_the_ones_before() {
    let mut stage = with_pod(RestartPolicy::Never).await;
    let collector = stage.collect().await;
    stage.write("p", 0..20);
    stage.until_lines(20).await;
    collector.stop().await;
    let files = stage.pod_log_dir.take();
    let collector = stage.collect().await;
    let seen = stage
        .until("both", |seen| {
            seen.len() == 2 && seen.iter().any(|seen| seen.ended) && seen.iter().all(|seen| seen.texts.len() == 20)
        })
        .await;
    assert!(seen.iter().all(|seen| seen.stream.contains(":out/") == seen.ended));
    collector.stop().await;
    stage.pod_log_dir = files;
    let collector = stage.collect().await;
    stage
        .until("two ended, and a third", |seen| {
            seen.len() == 3 && seen.iter().filter(|seen| seen.ended).count() == 2
        })
        .await;
    collector.stop().await;
}
