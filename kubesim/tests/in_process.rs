//! The API without a port behaves as on the port.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests use the operating system directly"
)]

mod support;

use std::io::ErrorKind;
use std::time::Duration;

use futures::{AsyncBufReadExt, StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams, LogParams, WatchEvent, WatchParams};
use kubesim::{Cluster, FaultKind, PodPlan, Scenario};
use support::{fetch, in_process, next_text, request, with_timeout};

const LOG: &str = "/api/v1/namespaces/a/pods/p/log";

/// Longer than any test: the fault lasts until the end of the test.
const LONG: Duration = Duration::from_secs(3600);

async fn with_pod() -> Cluster {
    let cluster = in_process(Scenario::default());
    cluster.create_pod(&PodPlan::silent("a", "p", "c")).unwrap();
    with_timeout(cluster.wait_running("a", "p", "c")).await.unwrap();
    cluster
}

#[tokio::test(start_paused = true)]
async fn the_client_of_collectors_lists_watches_and_follows() {
    let cluster = with_pod().await;
    let client = kube::Client::new(cluster.service(), "default");
    let pods: Api<Pod> = Api::namespaced(client, "a");
    let list = pods.list(&ListParams::default()).await.unwrap();
    assert_eq!(list.items.len(), 1);
    let version = list.metadata.resource_version.unwrap();
    let watch = pods.watch(&WatchParams::default(), &version).await.unwrap();
    let mut watch = Box::pin(watch);
    cluster.create_pod(&PodPlan::silent("a", "q", "c")).unwrap();
    let Some(Ok(WatchEvent::Added(pod))) = watch.next().await else {
        panic!("expected the new pod")
    };
    assert_eq!(pod.metadata.name.as_deref(), Some("q"));
    let params = LogParams {
        follow: true,
        ..LogParams::default()
    };
    let mut lines = pods.log_stream("p", &params).await.unwrap().lines();
    cluster.write_line("a", "p", "c", "hello").unwrap();
    assert_eq!(lines.try_next().await.unwrap().as_deref(), Some("hello"));
    cluster.exit_container("a", "p", "c", 0).await.unwrap();
    assert_eq!(lines.try_next().await.unwrap(), None);
    cluster.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn while_the_api_is_down_requests_are_refused_and_open_responses_break() {
    let cluster = with_pod().await;
    let (_, mut follow) = request(&cluster, &format!("{LOG}?follow=true")).await.unwrap();
    cluster.write_line("a", "p", "c", "before").unwrap();
    assert_eq!(next_text(&mut follow).await, "before\n");
    cluster.cause(FaultKind::StallRequests { duration: LONG });
    let stuck = tokio::spawn({
        let service = cluster.service();
        async move {
            let request = axum::http::Request::get(LOG).body(axum::body::Body::empty()).unwrap();
            tower::ServiceExt::oneshot(service, request).await.map(|_| ())
        }
    });
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(!stuck.is_finished(), "a stalled request gets no response");
    cluster.set_down(true);
    assert!(follow.next().await.unwrap().is_err());
    assert!(follow.next().await.is_none());
    assert_eq!(stuck.await.unwrap().unwrap_err().kind(), ErrorKind::ConnectionReset);
    let refused = request(&cluster, LOG).await.err().unwrap();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    cluster.set_down(false);
    let service = cluster.service();
    cluster.shutdown().await;
    let request = axum::http::Request::get(LOG).body(axum::body::Body::empty()).unwrap();
    let refused = tower::ServiceExt::oneshot(service, request).await.err().unwrap();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}

#[tokio::test(start_paused = true)]
async fn stalled_requests_are_answered_after_the_fault() {
    let cluster = with_pod().await;
    cluster.write_line("a", "p", "c", "late").unwrap();
    let start = tokio::time::Instant::now();
    let duration = Duration::from_secs(20);
    cluster.cause(FaultKind::StallRequests { duration });
    assert_eq!(fetch(&cluster, LOG).await, "late\n");
    assert!(start.elapsed() >= duration);
    cluster.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn streams_end_cleanly_or_broken() {
    let cluster = with_pod().await;
    let (_, mut follow) = request(&cluster, &format!("{LOG}?follow=true")).await.unwrap();
    cluster.cause(FaultKind::EndStreams);
    assert!(follow.next().await.is_none());
    let (_, mut follow) = request(&cluster, &format!("{LOG}?follow=true")).await.unwrap();
    cluster.cause(FaultKind::BreakStreams);
    assert!(follow.next().await.unwrap().is_err());
    cluster.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_holds_up_the_response() {
    let cluster = with_pod().await;
    let line = "x".repeat(999);
    cluster.write_lines("a", "p", "c", vec![&line; 1000]).unwrap();
    let (_, mut body) = request(&cluster, &format!("{LOG}?follow=true")).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    cluster.cause(FaultKind::BreakStreams);
    cluster.set_down(true);
    let mut bytes = 0;
    while let Some(Ok(piece)) = body.next().await {
        bytes += piece.len();
    }
    assert!(
        (32 << 10..=64 << 10).contains(&bytes),
        "{bytes} bytes were in the buffer"
    );
    cluster.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_dropped_response_frees_its_follow() {
    let cluster = with_pod().await;
    for _ in 0..300 {
        let (status, follow) = request(&cluster, &format!("{LOG}?follow=true")).await.unwrap();
        assert_eq!(status, 200);
        drop(follow);
        tokio::task::yield_now().await;
    }
    let (_, mut follow) = request(&cluster, &format!("{LOG}?follow=true")).await.unwrap();
    cluster.write_line("a", "p", "c", "followed").unwrap();
    assert_eq!(next_text(&mut follow).await, "followed\n");
    cluster.shutdown().await;
}
