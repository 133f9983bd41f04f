//! Faults of the node's clock, status reports and log writers.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests use the operating system directly"
)]

mod support;

use std::time::Duration;

use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};
use kubesim::{Cluster, FaultKind, LogLine, PodPlan, RestartPolicy, Scenario};
use serde_json::Value;
use support::{fetch, in_process, next_text, request, with_timeout};

const LOG: &str = "/api/v1/namespaces/a/pods/p/log";
const POD: &str = "/api/v1/namespaces/a/pods/p";

/// Longer than any test: the fault lasts until the end of the test.
const LONG: Duration = Duration::from_secs(3600);

async fn with_pod(policy: RestartPolicy) -> Cluster {
    let cluster = in_process(Scenario::default());
    let plan = PodPlan::silent("a", "p", "c").restarting(policy);
    cluster.create_pod(&plan).unwrap();
    with_timeout(cluster.wait_running("a", "p", "c")).await.unwrap();
    cluster
}

/// Returns the times of the log's lines.
async fn times(cluster: &Cluster, query: &str) -> Vec<Timestamp> {
    let log = fetch(cluster, &format!("{LOG}?timestamps=true{query}")).await;
    let time = |line: &str| line.split(' ').next().unwrap().parse().unwrap();
    log.lines().map(time).collect()
}

async fn status(cluster: &Cluster) -> (u64, String) {
    let pod: Value = serde_json::from_str(&fetch(cluster, POD).await).unwrap();
    let status = &pod["status"]["containerStatuses"][0];
    let id = status["containerID"].as_str().unwrap_or_default().to_owned();
    (status["restartCount"].as_u64().unwrap_or_default(), id)
}

#[tokio::test(start_paused = true)]
async fn a_late_status_shows_the_old_instance_while_logs_are_of_the_new_one() {
    let cluster = with_pod(RestartPolicy::Always).await;
    let before = status(&cluster).await;
    cluster.cause(FaultKind::StatusLag {
        duration: LONG,
        delay: Duration::from_secs(8),
    });
    cluster.write_line("a", "p", "c", "old").unwrap();
    cluster.exit_container("a", "p", "c", 1).await.unwrap();
    cluster.wait_running("a", "p", "c").await.unwrap();
    let written = cluster.write_log("a", "p", "c", ["new".into()]).unwrap();
    assert_ne!(written.container_id, before.1);
    assert_eq!(fetch(&cluster, LOG).await, "new\n");
    assert_eq!(status(&cluster).await, before, "not reported yet");
    tokio::time::sleep(Duration::from_secs(9)).await;
    assert_eq!(status(&cluster).await, (1, written.container_id));
    cluster.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_lag_reports_everything_and_a_late_removal_is_seen() {
    let cluster = with_pod(RestartPolicy::Never).await;
    let duration = Duration::from_secs(60);
    cluster.cause(FaultKind::StatusLag { duration, delay: LONG });
    cluster.delete_pod("a", "p", None).unwrap();
    cluster.wait_gone("a", "p").await.unwrap();
    let pod = fetch(&cluster, POD).await;
    assert!(
        pod.contains("deletionTimestamp") && pod.contains("\"running\""),
        "{pod}"
    );
    assert_eq!(request(&cluster, LOG).await.unwrap().0, 404);
    tokio::time::sleep(duration).await;
    assert_eq!(request(&cluster, POD).await.unwrap().0, 404);
    cluster.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn lines_go_back_in_time_after_the_clock_stepped_back() {
    let cluster = with_pod(RestartPolicy::Never).await;
    let by = SignedDuration::from_secs(-30);
    for text in ["one", "two"] {
        cluster.write_line("a", "p", "c", text).unwrap();
        cluster.cause(FaultKind::StepClock { by });
    }
    cluster.write_line("a", "p", "c", "three").unwrap();
    let times_of_log = times(&cluster, "").await;
    assert!(times_of_log.is_sorted_by(|one, other| one.duration_since(*other).as_secs() >= 29));
    let since = times_of_log[1];
    let newer = times(&cluster, &format!("&sinceTime={since:.0}")).await;
    assert_eq!(newer, times_of_log[..2], "each line is compared");
    let (_, mut follow) = request(&cluster, &format!("{LOG}?follow=true&sinceTime={since:.0}"))
        .await
        .unwrap();
    assert_eq!(next_text(&mut follow).await, "one\ntwo\n");
    cluster.write_line("a", "p", "c", "too old").unwrap();
    tokio::task::yield_now().await;
    cluster.cause(FaultKind::StepClock { by: -by * 2 });
    cluster.write_line("a", "p", "c", "new again").unwrap();
    assert_eq!(next_text(&mut follow).await, "new again\n");
    cluster.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn many_lines_have_one_timestamp() {
    let cluster = with_pod(RestartPolicy::Never).await;
    cluster.cause(FaultKind::FreezeClock { duration: LONG });
    for _ in 0..3 {
        cluster.write_lines("a", "p", "c", ["x"; 5]).unwrap();
    }
    let time = Some(cluster.node_time());
    let line = |text: &str| LogLine { time, ..text.into() };
    cluster.write_log("a", "p", "c", ["y", "z"].map(line)).unwrap();
    let times = times(&cluster, "").await;
    assert_eq!((times.len(), times.iter().max()), (17, times.iter().min()));
    cluster.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn outputs_are_out_of_order_with_each_other_but_not_in_themselves() {
    let cluster = with_pod(RestartPolicy::Never).await;
    cluster.cause(FaultKind::DelayWrites {
        duration: LONG,
        delay: Duration::from_millis(5),
    });
    let line = |stderr| LogLine {
        stderr,
        ..LogLine::default()
    };
    let lines = (0..200).map(|number| line(number % 2 == 1));
    let written = cluster.write_log("a", "p", "c", lines).unwrap().lines;
    assert!(!written.is_sorted_by_key(|line| line.time));
    for stderr in [false, true] {
        let of_output = written.iter().filter(|line| line.stderr == stderr);
        assert!(of_output.is_sorted_by_key(|line| line.time));
    }
    cluster.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn each_rotation_strands_the_follows_that_read_the_file() {
    let cluster = with_pod(RestartPolicy::Never).await;
    cluster.cause(FaultKind::StrandOnRotation { duration: LONG });
    for text in ["one\n", "two\n"] {
        let (_, mut follow) = request(&cluster, &format!("{LOG}?follow=true")).await.unwrap();
        cluster.write_line("a", "p", "c", text.trim_end()).unwrap();
        assert_eq!(next_text(&mut follow).await, text);
        cluster.rotate_log("a", "p", "c").unwrap();
        cluster.write_line("a", "p", "c", "in the next file").unwrap();
        let next = tokio::time::timeout(Duration::from_secs(60), follow.next()).await;
        assert!(next.is_err(), "the follow is silent: {next:?}");
        cluster.rotate_log("a", "p", "c").unwrap();
    }
    cluster.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn the_writer_knows_instance_number_and_file_of_each_line() {
    let cluster = with_pod(RestartPolicy::Always).await;
    let lines = |count: usize| std::iter::repeat_n(LogLine::from("a line"), count);
    let first = cluster.write_log("a", "p", "c", lines(2)).unwrap();
    cluster.write_unterminated("a", "p", "c", "half ").unwrap();
    cluster.rotate_log("a", "p", "c").unwrap();
    let mut second = cluster.write_log("a", "p", "c", lines(5000)).unwrap();
    assert_eq!(first.container_id, second.container_id);
    first
        .lines
        .iter()
        .chain(&second.lines)
        .zip(0..)
        .for_each(|(line, number)| {
            assert_eq!((line.number, line.rotations), (number, u64::from(number > 1)));
            assert_eq!((line.stderr, line.files_before), (false, None));
        });
    cluster.exit_container("a", "p", "c", 1).await.unwrap();
    cluster.wait_running("a", "p", "c").await.unwrap();
    let third = cluster.write_log("a", "p", "c", lines(1)).unwrap();
    assert_eq!((third.lines[0].number, third.lines[0].rotations), (0, 0));
    let outputs = cluster.written("a", "p", "c");
    second.lines.truncate(1);
    assert_eq!(
        (&outputs[0].container_id, &outputs[1].container_id),
        (&second.container_id, &third.container_id)
    );
    cluster.shutdown().await;
}

#[test]
fn faults_of_the_node_are_parsed_from_a_scenario() {
    let text = "[log_files]\nutc_offset = \"2h\"\n\
        [[faults]]\nat = 1\nkind = \"step-clock\"\nby = \"-30s\"\n\
        [[faults]]\nat = 2\nkind = \"status-lag\"\nfor = \"1m\"\ndelay = 3\n\
        [[faults]]\nat = 3\nkind = \"set-utc-offset\"\noffset = \"1h\"\n\
        [[faults]]\nat = 4\nkind = \"truncate-log-files\"\nnamespace = \"a\"\npod = \"p\"\n";
    let scenario = Scenario::from_toml(text).unwrap();
    assert_eq!(scenario.log_files.utc_offset, Some(SignedDuration::from_hours(2)));
    let kinds: Vec<_> = scenario.faults.into_iter().map(|fault| fault.kind).collect();
    let expected = [
        FaultKind::StepClock {
            by: SignedDuration::from_secs(-30),
        },
        FaultKind::StatusLag {
            duration: Duration::from_secs(60),
            delay: Duration::from_secs(3),
        },
        FaultKind::SetUtcOffset {
            offset: SignedDuration::from_hours(1),
        },
        FaultKind::TruncateLogFiles {
            namespace: "a".to_owned(),
            pod: "p".to_owned(),
        },
    ];
    assert_eq!(kinds, expected);
    for (text, expected) in [
        (
            "[[faults]]\nat = 1\nkind = \"step-clock\"\n",
            "fault `step-clock` needs the key `by`; add it",
        ),
        (
            "[[faults]]\nat = 1\nkind = \"rotate\"\nby = 1\n",
            "fault `rotate` has no key `by`; remove it",
        ),
        (
            "[[faults]]\nat = 1\nkind = \"set-utc-offset\"\noffset = \"30h\"\n",
            "`offset` = 108000 s is too large; write 24 h or less",
        ),
        ("[[faults]]\nat = -1\nkind = \"rotate\"\n", "-1 is not a duration"),
    ] {
        let error = Scenario::from_toml(text).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}
