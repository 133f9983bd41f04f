//! Faults of the node and the API.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests use the operating system directly"
)]

mod support;

use std::time::Duration;

use kubesim::{Cluster, FaultKind, PodPlan, RestartPolicy, Scenario};
use support::{Piece, cluster, get, open, with_timeout};

const LOG: &str = "/api/v1/namespaces/a/pods/p/log";

/// Longer than any test: the fault lasts until the end of the test.
const LONG: Duration = Duration::from_secs(3600);

/// Ends within a test, but is long enough to be observed.
const SHORT: Duration = Duration::from_millis(300);

async fn with_pod() -> Cluster {
    let cluster = cluster(Scenario::default()).await;
    let plan = PodPlan::silent("a", "p", "c").restarting(RestartPolicy::Never);
    cluster.create_pod(&plan).unwrap();
    with_timeout(cluster.wait_running("a", "p", "c")).await.unwrap();
    cluster
}

fn write(cluster: &Cluster, text: &str) {
    cluster.write_line("a", "p", "c", text).unwrap();
}

#[tokio::test]
async fn a_follow_crosses_rotations_and_a_request_reads_the_current_file() {
    let cluster = with_pod().await;
    let mut follow = open(cluster.addr(), "GET", &format!("{LOG}?follow=true")).await;
    for text in ["one", "two", "three"] {
        write(&cluster, text);
        cluster.cause(FaultKind::Rotate);
        assert_eq!(follow.text().await, format!("{text}\n"));
    }
    write(&cluster, "four");
    assert_eq!(get(cluster.addr(), LOG).await.body, "four\n");
    cluster.cause(FaultKind::Rotate);
    cluster.cause(FaultKind::Rotate);
    assert_eq!(
        cluster.written("a", "p", "c")[0].rotations,
        4,
        "an empty file is not rotated"
    );
    with_timeout(cluster.shutdown()).await;
}

#[tokio::test]
async fn a_stalled_follow_silently_skips_rotated_files() {
    let cluster = with_pod().await;
    let mut follow = open(cluster.addr(), "GET", &format!("{LOG}?follow=true")).await;
    write(&cluster, "first");
    assert_eq!(follow.text().await, "first\n");
    cluster.cause(FaultKind::StallFollows { duration: SHORT });
    for text in ["rest of its file", "skipped", "skipped too"] {
        write(&cluster, text);
        cluster.cause(FaultKind::Rotate);
    }
    write(&cluster, "current");
    assert_eq!(follow.text().await, "rest of its file\n");
    assert_eq!(follow.text().await, "current\n");
    with_timeout(cluster.shutdown()).await;
}

#[tokio::test]
async fn a_stranded_follow_ends_with_the_old_file_and_a_request_returns_the_rest() {
    let cluster = with_pod().await;
    let mut follow = open(cluster.addr(), "GET", &format!("{LOG}?follow=true")).await;
    write(&cluster, "old");
    assert_eq!(follow.text().await, "old\n");
    cluster.cause(FaultKind::StrandFollows);
    cluster.cause(FaultKind::Rotate);
    write(&cluster, "new");
    cluster.exit_container("a", "p", "c", 0).await.unwrap();
    assert_eq!(follow.chunk().await, Piece::End);
    assert_eq!(get(cluster.addr(), LOG).await.body, "new\n");
    with_timeout(cluster.shutdown()).await;
}

#[tokio::test]
async fn slow_logs_are_complete() {
    let cluster = with_pod().await;
    cluster.cause(FaultKind::SlowLogs {
        duration: LONG,
        delay: Duration::from_millis(20),
    });
    write(&cluster, "late");
    assert_eq!(get(cluster.addr(), LOG).await.body, "late\n");
    with_timeout(cluster.shutdown()).await;
}

#[tokio::test]
async fn a_busy_api_returns_429_with_retry_after_and_open_streams_continue() {
    let cluster = with_pod().await;
    let mut follow = open(cluster.addr(), "GET", &format!("{LOG}?follow=true")).await;
    cluster.cause(FaultKind::ApiBusy { duration: LONG });
    for path in [LOG, "/api/v1/pods"] {
        let reply = open(cluster.addr(), "GET", path).await;
        assert_eq!(reply.header("retry-after"), Some("1"));
        let reply = reply.finish().await;
        assert_eq!(reply.status, 429);
        assert!(reply.body.contains("\"reason\": \"TooManyRequests\""), "{}", reply.body);
    }
    write(&cluster, "still here");
    assert_eq!(follow.text().await, "still here\n");
    with_timeout(cluster.shutdown()).await;
}

#[tokio::test]
async fn a_revoked_permission_takes_effect_at_the_next_request() {
    let cluster = with_pod().await;
    let mut follow = open(cluster.addr(), "GET", &format!("{LOG}?follow=true")).await;
    cluster.cause(FaultKind::LogsForbidden { duration: LONG });
    let reply = get(cluster.addr(), LOG).await;
    assert_eq!(reply.status, 403);
    assert!(
        reply.body.contains("cannot get resource \\\"pods/log\\\""),
        "{}",
        reply.body
    );
    assert_eq!(get(cluster.addr(), "/api/v1/pods").await.status, 200);
    write(&cluster, "still here");
    assert_eq!(follow.text().await, "still here\n");
    with_timeout(cluster.shutdown()).await;
}

#[tokio::test]
async fn a_muted_watch_stays_open_and_sends_all_events_afterwards() {
    let cluster = with_pod().await;
    let list: serde_json::Value = serde_json::from_str(&get(cluster.addr(), "/api/v1/pods").await.body).unwrap();
    let version = list["metadata"]["resourceVersion"].as_str().unwrap();
    let mut watch = open(
        cluster.addr(),
        "GET",
        &format!("/api/v1/pods?watch=1&resourceVersion={version}"),
    )
    .await;
    cluster.mute_watches(true);
    cluster.create_pod(&PodPlan::silent("a", "q", "c")).unwrap();
    with_timeout(cluster.wait_running("a", "q", "c")).await.unwrap();
    let listed = get(cluster.addr(), "/api/v1/pods").await.body;
    assert!(listed.contains("\"q\""), "{listed}");
    cluster.mute_watches(false);
    let events = watch.text().await;
    assert!(
        events.starts_with("{\"type\":\"ADDED\"") && events.contains("\"MODIFIED\""),
        "events of the muted time arrive together: {events}"
    );
    with_timeout(cluster.shutdown()).await;
}

#[tokio::test]
async fn an_expired_watch_gets_an_error_event_410_in_a_200_response() {
    let cluster = with_pod().await;
    let list: serde_json::Value = serde_json::from_str(&get(cluster.addr(), "/api/v1/pods").await.body).unwrap();
    let version = list["metadata"]["resourceVersion"].as_str().unwrap();
    let watch = format!("/api/v1/pods?watch=1&resourceVersion={version}");
    let open_one = open(cluster.addr(), "GET", &watch).await;
    cluster.cause(FaultKind::ExpireWatches);
    assert!(open_one.finish().await.clean);
    let again = get(cluster.addr(), &watch).await;
    assert_eq!(again.status, 200);
    assert!(
        again.body.starts_with("{\"type\":\"ERROR\"") && again.body.contains("\"code\":410"),
        "{}",
        again.body
    );
    with_timeout(cluster.shutdown()).await;
}

#[test]
fn faults_are_parsed_from_a_scenario() {
    let text = "rotate_bytes = 65536\n\
        [[faults]]\nat = 1\nkind = \"rotate\"\n\
        [[faults]]\nat = 2\nkind = \"slow-logs\"\nfor = \"2s\"\ndelay = \"50ms\"\n\
        [[faults]]\nat = 3\nkind = \"stall-follows\"\nfor = 1\n\
        [[faults]]\nat = 4\nkind = \"mute-watches\"\nfor = \"1m\"\n";
    let scenario = Scenario::from_toml(text).unwrap();
    assert_eq!(scenario.rotate_bytes, 65536);
    let kinds: Vec<_> = scenario.faults.into_iter().map(|fault| fault.kind).collect();
    let expected = [
        FaultKind::Rotate,
        FaultKind::SlowLogs {
            duration: Duration::from_secs(2),
            delay: Duration::from_millis(50),
        },
        FaultKind::StallFollows {
            duration: Duration::from_secs(1),
        },
        FaultKind::MuteWatches {
            duration: Duration::from_secs(60),
        },
    ];
    assert_eq!(kinds, expected);
    for (text, expected) in [
        (
            "rotate_bytes = 10\n",
            "line 1, column 16: `rotate_bytes` = 10 is too small; write 4096 or more",
        ),
        (
            "[[faults]]\nat = 1\nkind = \"rotate\"\nfor = 1\n",
            "line 1, column 1: fault `rotate` has no key `for`; remove it",
        ),
        (
            "[[faults]]\nat = 1\nkind = \"slow-logs\"\nfor = 1\n",
            "line 1, column 1: fault `slow-logs` needs the key `delay`; add it",
        ),
        (
            "[[faults]]\nat = 1\nkind = \"rotate\"\ndelay = 1\n",
            "line 1, column 1: fault `rotate` has no key `delay`; remove it",
        ),
    ] {
        let error = Scenario::from_toml(text).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}
