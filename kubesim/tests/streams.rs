//! Log streams: start, continuation and end.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests use the operating system directly"
)]

mod support;

use std::time::{Duration, Instant};

use kubesim::{Cluster, FaultKind, PodPlan, RestartPolicy, Scenario};
use support::{Piece, cluster, get, open, with_timeout};

const LOG: &str = "/api/v1/namespaces/a/pods/p/log";

async fn with_pod(policy: RestartPolicy) -> Cluster {
    let cluster = cluster(Scenario::default()).await;
    cluster
        .create_pod(&PodPlan::silent("a", "p", "c").restarting(policy))
        .unwrap();
    with_timeout(cluster.wait_running("a", "p", "c")).await.unwrap();
    cluster
}

#[tokio::test]
async fn a_follow_gets_each_line_in_its_own_chunk() {
    let cluster = with_pod(RestartPolicy::Never).await;
    cluster.write_lines("a", "p", "c", ["old 1", "old 2"]).unwrap();
    let mut follow = open(
        cluster.addr(),
        "GET",
        &format!("{LOG}?follow=true&timestamps=true&tailLines=1"),
    )
    .await;
    assert_eq!(follow.header("content-type"), Some("text/plain"));
    assert_eq!(follow.header("transfer-encoding"), Some("chunked"));
    assert!(follow.text().await.ends_with("Z old 2\n"));
    for text in ["one", "", "three \r", "vier\u{e9}"] {
        let time = cluster.write_line("a", "p", "c", text).unwrap();
        let chunk = follow.text().await;
        assert_eq!(
            chunk,
            format!(
                "{} {}\n",
                time.strftime("%Y-%m-%dT%H:%M:%S.%9fZ"),
                text.trim_end_matches('\r')
            )
        );
        assert_eq!(chunk.find(' '), Some(30), "a timestamp is always 30 bytes");
    }
    with_timeout(cluster.shutdown()).await;
}

#[tokio::test]
async fn a_follow_ends_cleanly_after_the_exit_with_the_unterminated_line() {
    let cluster = with_pod(RestartPolicy::Never).await;
    let mut follow = open(cluster.addr(), "GET", &format!("{LOG}?follow=true")).await;
    cluster.write_unterminated("a", "p", "c", "last words").unwrap();
    assert_eq!(follow.text().await, "last words");
    cluster.exit_container("a", "p", "c", 1).await.unwrap();
    let exited = Instant::now();
    assert_eq!(follow.chunk().await, Piece::End);
    let lag = exited.elapsed();
    assert!(
        lag > Duration::from_millis(400) && lag < Duration::from_secs(5),
        "ended after {lag:?}"
    );
    let again = get(cluster.addr(), &format!("{LOG}?follow=true")).await;
    assert_eq!(
        (again.body.as_str(), again.clean),
        ("last words", true),
        "the log of an exited container ends at once"
    );
    assert_eq!(cluster.written("a", "p", "c")[0].lines, 1);
    with_timeout(cluster.shutdown()).await;
}

#[tokio::test]
async fn previous_returns_the_instance_before_the_running_one() {
    let cluster = with_pod(RestartPolicy::Always).await;
    cluster.write_line("a", "p", "c", "first").unwrap();
    let previous = format!("{LOG}?previous=true");
    assert_eq!(get(cluster.addr(), &previous).await.status, 400);
    cluster.exit_container("a", "p", "c", 1).await.unwrap();
    with_timeout(cluster.wait_running("a", "p", "c")).await.unwrap();
    cluster.write_line("a", "p", "c", "second").unwrap();
    assert_eq!(get(cluster.addr(), &previous).await.body, "first\n");
    assert_eq!(get(cluster.addr(), LOG).await.body, "second\n");
    cluster.exit_container("a", "p", "c", 1).await.unwrap();
    assert_eq!(
        get(cluster.addr(), LOG).await.body,
        "second\n",
        "the log of the terminated instance stays readable"
    );
    let gone = get(cluster.addr(), &previous).await;
    let id = &cluster.written("a", "p", "c")[0].container_id;
    assert_eq!(
        (gone.status, gone.body),
        (200, format!("unable to retrieve container logs for {id}"))
    );
    with_timeout(cluster.shutdown()).await;
}

#[tokio::test]
async fn streams_end_cleanly_or_break_on_request() {
    let cluster = with_pod(RestartPolicy::Never).await;
    let follow = format!("{LOG}?follow=true");
    for breaks in [false, true] {
        let log = open(cluster.addr(), "GET", &follow).await;
        let watch = open(cluster.addr(), "GET", "/api/v1/pods?watch=1").await;
        if breaks {
            cluster.break_streams()
        } else {
            cluster.end_streams()
        }
        assert_eq!(log.finish().await.clean, !breaks);
        assert_eq!(watch.finish().await.clean, !breaks);
    }
    with_timeout(cluster.shutdown()).await;
}

#[tokio::test]
async fn a_closed_port_refuses_connections_until_it_reopens() {
    let cluster = with_pod(RestartPolicy::Never).await;
    let addr = cluster.addr();
    let log = open(addr, "GET", &format!("{LOG}?follow=true")).await;
    cluster.set_down(true);
    assert!(!log.finish().await.clean);
    with_timeout(async { while tokio::net::TcpStream::connect(addr).await.is_ok() {} }).await;
    cluster.set_down(false);
    with_timeout(async { while tokio::net::TcpStream::connect(addr).await.is_err() {} }).await;
    assert_eq!(get(addr, "/version").await.status, 200);
    with_timeout(cluster.shutdown()).await;
}

#[tokio::test]
async fn a_follow_continues_over_a_rotation_and_a_request_reads_the_current_file_only() {
    let cluster = with_pod(RestartPolicy::Never).await;
    let mut follow = open(cluster.addr(), "GET", &format!("{LOG}?follow=true")).await;
    let line = |seq: u32| format!("{seq} {}", "x".repeat(1000));
    let mut received = Vec::new();
    let mut seq = 0;
    while cluster.written("a", "p", "c")[0].rotations < 2 {
        let end = seq + 1000;
        cluster.write_lines("a", "p", "c", (seq..end).map(line)).unwrap();
        seq = end;
        let complete = (0..seq).map(|seq| line(seq).len() + 1).sum::<usize>();
        while received.len() < complete {
            received.extend(follow.text().await.into_bytes());
        }
    }
    let expected: String = (0..seq).map(|seq| line(seq) + "\n").collect();
    assert!(received == expected.as_bytes(), "the follow contains every line once");
    let current = get(cluster.addr(), LOG).await.body;
    assert!(current.len() < 10 << 20 && !current.starts_with("0 ") && expected.ends_with(&current));
    with_timeout(cluster.shutdown()).await;
}

#[tokio::test]
async fn a_stopped_runtime_answers_with_an_error_text_and_follows_continue() {
    let cluster = with_pod(RestartPolicy::Never).await;
    let mut follow = open(cluster.addr(), "GET", &format!("{LOG}?follow=true")).await;
    cluster.cause(FaultKind::RuntimeDown {
        duration: Duration::from_secs(3600),
    });
    let reply = get(cluster.addr(), LOG).await;
    assert_eq!(reply.status, 200);
    assert!(
        reply
            .body
            .starts_with("unable to retrieve container logs for containerd://")
    );
    cluster.write_line("a", "p", "c", "still here").unwrap();
    assert_eq!(follow.text().await, "still here\n");
    with_timeout(cluster.shutdown()).await;
}

#[tokio::test]
async fn a_node_serves_a_bounded_number_of_follows() {
    let cluster = with_pod(RestartPolicy::Never).await;
    cluster.write_line("a", "p", "c", "data").unwrap();
    let mut follows = Vec::new();
    for _ in 0..112 {
        let mut follow = open(cluster.addr(), "GET", &format!("{LOG}?follow=true")).await;
        assert_eq!(follow.text().await, "data\n");
        follows.push(follow);
    }
    let one_more = get(cluster.addr(), &format!("{LOG}?follow=true")).await;
    assert_eq!(
        one_more.body,
        "data\nfailed to create fsnotify watcher: too many open files"
    );
    assert!(one_more.clean && one_more.status == 200);
    with_timeout(cluster.shutdown()).await;
}

#[tokio::test]
async fn all_numbered_lines_are_written_and_the_pod_succeeds() {
    let toml = "[[pods]]\nnamespace = \"a\"\nname = \"p\"\nreplicas = 2\n\
                [[pods.containers]]\nname = \"c\"\nlines = 5000\nrate = 0\nsize = 40\n";
    let scenario = Scenario::from_toml(toml).unwrap();
    let names = |cluster: &Cluster| cluster.pods().into_iter().map(|(_, name)| name).collect::<Vec<_>>();
    let first = cluster(scenario.clone()).await;
    let second = cluster(scenario).await;
    let mut watch = open(first.addr(), "GET", "/api/v1/pods?watch=1").await;
    let mut events = String::new();
    while events.matches("\"phase\":\"Succeeded\"").count() < 2 {
        events += &watch.text().await;
    }
    let pods = names(&first);
    assert_eq!(pods.len(), 2);
    assert_eq!(pods, names(&second), "the seed determines the names");
    for pod in pods {
        let body = get(first.addr(), &format!("/api/v1/namespaces/a/pods/{pod}/log"))
            .await
            .body;
        let lines: Vec<_> = body.lines().collect();
        assert_eq!(lines.len(), 5000);
        let numbered = |(seq, line): (usize, &&str)| line.len() == 40 && line.starts_with(&format!("line {seq} "));
        assert!(lines.iter().enumerate().all(numbered));
        assert_eq!(first.written("a", &pod, "c")[0].lines, 5000);
    }
    with_timeout(first.shutdown()).await;
    with_timeout(second.shutdown()).await;
}

#[tokio::test]
async fn a_forced_deletion_returns_404_at_once_while_the_follow_continues_briefly() {
    let cluster = with_pod(RestartPolicy::Always).await;
    let follow = open(cluster.addr(), "GET", &format!("{LOG}?follow=true")).await;
    let deleted = Instant::now();
    let reply = open(
        cluster.addr(),
        "DELETE",
        "/api/v1/namespaces/a/pods/p?gracePeriodSeconds=0",
    )
    .await
    .finish()
    .await;
    assert_eq!(reply.status, 200);
    let gone = get(cluster.addr(), LOG).await;
    assert!(gone.status == 404 && gone.body.contains("\"kind\": \"pods\""));
    assert!(follow.finish().await.clean && deleted.elapsed() > Duration::from_secs(2));
    with_timeout(cluster.shutdown()).await;
}

#[tokio::test]
async fn a_kubelet_restart_ends_follows_and_returns_500_then_404_then_200() {
    let cluster = with_pod(RestartPolicy::Always).await;
    let follow = open(cluster.addr(), "GET", &format!("{LOG}?follow=true")).await;
    cluster.cause(FaultKind::KubeletDown {
        duration: Duration::from_millis(200),
    });
    assert!(follow.finish().await.clean);
    let mut statuses = Vec::new();
    with_timeout(async {
        while statuses.last() != Some(&200) {
            let reply = get(cluster.addr(), LOG).await;
            if reply.status == 404 {
                assert!(
                    reply
                        .body
                        .contains("the server could not find the requested resource ( pods/log p)")
                );
                assert!(reply.body.contains("\"kind\": \"pods/log\""));
            }
            if statuses.last() != Some(&reply.status) {
                statuses.push(reply.status);
            }
        }
    })
    .await;
    assert_eq!(statuses, [500, 404, 200]);
    with_timeout(cluster.shutdown()).await;
}
