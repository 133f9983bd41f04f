//! Limits on tails, memory and slow clients.

#![allow(clippy::unwrap_used, reason = "a panic in a helper fails the test")]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests use the operating system directly"
)]

mod support;

use std::time::Duration;

use streamer::Config;
use support::*;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

const LOGS: &str = "/api/apps/shop/logs";

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_above_the_limit_is_refused_before_the_response_starts() {
    let stack = Stack::start(Config {
        max_tails: 3,
        max_tails_per_app: 2,
        // Does not apply to the loopback addresses of tests.
        max_tails_per_address: 1,
        ..Config::default()
    })
    .await;
    let web = stream("web", Duration::ZERO);
    stack.publish([lines(&web, 0, 1)]).await;
    let mut tails = vec![stack.get(LOGS).await, stack.get(LOGS).await];
    let refused = stack.get(LOGS).await;
    assert_eq!(refused.response.status(), 429);
    let retry: u64 = refused.response.headers()["retry-after"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!((5..=15).contains(&retry));
    let (_, body) = stack.get_all_unterminated(LOGS).await;
    assert_eq!(
        body,
        r#"{"errors":{"":["too many open log requests of this app: 2 of 2; close one or retry later"]}}"#
    );
    let url = format!("ws://{}{LOGS}", stack.addr);
    let upgrade = tokio_tungstenite::connect_async(url).await.unwrap_err();
    assert!(
        upgrade.to_string().contains("429"),
        "refused before the upgrade: {upgrade}"
    );
    // Failed and completed requests do not count.
    assert_eq!(stack.get_all_unterminated("/api/apps/nope/logs").await.0, 404);
    drop(tails.pop());
    eventually(&stack, "tributary_streamer_tails", 1).await;
    stack.get_all(&format!("{LOGS}?follow=False")).await;
    eventually(&stack, "tributary_streamer_tails", 1).await;
    tails.push(stack.get(LOGS).await);
    assert_eq!(tails[1].response.status(), 200);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_on_connections_above_the_limit_are_refused_until_one_closes() {
    let stack = Stack::start(Config {
        max_connections: 2,
        ..Config::default()
    })
    .await;
    let web = stream("web", Duration::ZERO);
    stack.publish([lines(&web, 0, 1)]).await;
    let get = async || {
        let mut connection = TcpStream::connect(stack.addr).await.unwrap();
        let request = format!("GET {LOGS} HTTP/1.1\r\nhost: x\r\n\r\n");
        connection.write_all(request.as_bytes()).await.unwrap();
        let mut head = [0; 12];
        let read = tokio::time::timeout(TIMEOUT, connection.read_exact(&mut head)).await;
        read.expect("an answer").unwrap();
        (head, connection)
    };
    let first = get().await;
    let second = get().await;
    assert_eq!([&first.0, &second.0], [b"HTTP/1.1 200"; 2]);
    let (status, mut refused) = get().await;
    assert_eq!(&status, b"HTTP/1.1 429");
    let mut rest = String::new();
    let closed = tokio::time::timeout(TIMEOUT, refused.read_to_string(&mut rest)).await;
    closed.expect("the server closes it").unwrap();
    assert!(rest.contains("too many connections to this server: 2 of 2"), "{rest}");
    drop(first);
    let admitted = async { while &get().await.0 != b"HTTP/1.1 200" {} };
    tokio::time::timeout(TIMEOUT, admitted)
        .await
        .expect("room for a connection");
    drop(second);
    stack.stop().await;
}

async fn eventually(stack: &Stack, metric: &str, value: u64) {
    let there = async {
        while stack.metric(metric) != value {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(TIMEOUT, there).await.expect(metric);
}

/// Opens a tail that never reads its response.
async fn stalled_tail(stack: &Stack) -> TcpStream {
    let mut connection = TcpStream::connect(stack.addr).await.unwrap();
    let request = format!("GET {LOGS}?num_lines=0 HTTP/1.1\r\nhost: x\r\n\r\n");
    connection.write_all(request.as_bytes()).await.unwrap();
    connection
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_client_is_disconnected_and_does_not_delay_others() {
    let stack = Stack::start(Config {
        stall_timeout: Duration::from_millis(300),
        ring_bytes: 1 << 20,
        ..Config::default()
    })
    .await;
    let web = stream("web", Duration::ZERO);
    stack.publish([lines(&web, 0, 1)]).await;
    let mut stalled = [stalled_tail(&stack).await, stalled_tail(&stack).await];
    let mut tail = stack.get(&format!("{LOGS}?num_lines=1")).await;
    assert_eq!(text_of(&tail.line().await.unwrap()), "0");
    eventually(&stack, "tributary_streamer_tails", 3).await;
    let mut next = 1;
    // Publish until the sockets of the stalled clients are full and their timeout is over.
    while stack.metric("tributary_streamer_stalled_connections_total") < 2 {
        stack.publish([padded(&web, next, next + 100, 1000)]).await;
        for line in tail.lines(100).await {
            assert_eq!(text_of(&line).trim_end_matches('x'), next.to_string());
            next += 1;
        }
    }
    eventually(&stack, "tributary_streamer_tails", 1).await;
    for connection in &mut stalled {
        let mut rest = Vec::new();
        // The kernel still delivers what it buffered, then the end or a reset.
        let _ = tokio::time::timeout(TIMEOUT, connection.read_to_end(&mut rest))
            .await
            .expect("closed");
        assert!(
            rest.starts_with(b"HTTP/1.1 200") && rest.len() < 8 << 20,
            "{} bytes",
            rest.len()
        );
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn skipped_lines_are_reported_in_ndjson_and_counted() {
    let stack = Stack::start(Config {
        ring_bytes: 512 * 1024,
        ..Config::default()
    })
    .await;
    let web = stream("web", Duration::ZERO);
    stack.publish([lines(&web, 0, 1)]).await;
    let json = [("accept", "application/x-ndjson")];
    let mut tail = stack.get_with(LOGS, &json).await;
    assert_eq!(tail.json().await["seq"], 0);
    let total = 40_000;
    for seq in (1..total).step_by(1000) {
        stack.publish([padded(&web, seq, (seq + 1000).min(total), 500)]).await;
    }
    let (mut next, mut skipped) = (1, 0);
    while next < total {
        let line = tail.json().await;
        if let Some(seq) = line["seq"].as_u64() {
            assert_eq!(seq, next);
            next += 1;
        } else {
            assert_eq!(line["notice"]["code"], "L11");
            let count = line["notice"]["count"].as_u64().unwrap();
            next += count;
            skipped += count;
        }
    }
    assert!(skipped > 0, "lines were skipped");
    assert_eq!(
        stack.metric("tributary_streamer_lost_lines_total{reason=\"slow_client\"}"),
        skipped
    );
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_rings_together_stay_within_their_limit() {
    let stack = Stack::start(Config {
        total_ring_bytes: 2 << 20,
        ..Config::default()
    })
    .await;
    let mut tails = Vec::new();
    for app in ["a", "b", "c"] {
        let mut metadata = (*stream("web", Duration::ZERO)).clone();
        metadata.app = app.parse().unwrap();
        let web = std::sync::Arc::new(metadata);
        stack.publish([lines(&web, 0, 1)]).await;
        let path = format!("/api/apps/{app}/logs");
        let mut tail = stack.get(&path).await;
        assert_eq!(text_of(&tail.line().await.unwrap()), "0");
        for seq in (1..4001).step_by(100) {
            stack.publish([padded(&web, seq, seq + 100, 1000)]).await;
            for line in tail.lines(100).await {
                assert!(
                    !line.contains("tributary"),
                    "a client that keeps up skips nothing: {line}"
                );
            }
        }
        tails.push(tail);
        assert!(stack.metric("tributary_streamer_ring_bytes") < 3 << 20);
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unread_histories_leave_a_minimum_budget_and_truncation_is_reported() {
    let stack = Stack::start(Config {
        total_history_bytes: 32 << 20,
        ..Config::default()
    })
    .await;
    let web = stream("web", Duration::from_secs(3600));
    // 40 MB, more than the limit of all histories.
    stack
        .publish((0..40).map(|batch| padded(&web, batch * 1000, batch * 1000 + 1000, 1000)))
        .await;
    let mut held = Vec::new();
    for _ in 0..8 {
        // A small receive buffer, so that the kernel takes little of the response.
        let reader = TcpSocket::new_v4().unwrap();
        reader.set_recv_buffer_size(4096).unwrap();
        let mut reader = reader.connect(stack.addr).await.unwrap();
        let request = "GET /api/apps/shop/logs?num_lines=40000&follow=False HTTP/1.1\r\nhost: x\r\n\r\n";
        reader.write_all(request.as_bytes()).await.unwrap();
        let mut head = [0; 12];
        reader.read_exact(&mut head).await.unwrap();
        assert!(head.ends_with(b"200"));
        held.push(reader);
    }
    // Each read gets a quarter of the remaining budget; renderings add to it.
    let bytes = stack.metric("tributary_streamer_history_bytes");
    assert!((8 << 20..48 << 20).contains(&bytes), "{bytes}");
    let (_, body) = stack.get_all("/api/apps/shop/logs?num_lines=40000&follow=False").await;
    assert!(body.contains("Error L15: history cut to the newest"), "{:.200}", body);
    let last = body.lines().last().unwrap();
    assert!(text_of(last).starts_with("39999x"), "the newest line: {last:.80}");
    drop(held);
    eventually(&stack, "tributary_streamer_history_bytes", 0).await;
    let (_, body) = stack.get_all("/api/apps/shop/logs?num_lines=500&follow=False").await;
    assert!(!body.contains("Error"), "the budget is free again");
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_trusted_proxy_the_limit_applies_to_the_forwarded_address() {
    let stack = Stack::behind_proxies(Config {
        max_tails_per_address: 1,
        ..Config::default()
    })
    .await;
    stack.publish([lines(&stream("web", Duration::ZERO), 0, 1)]).await;
    let from = async |address: &str| {
        let tail = stack.get_with(LOGS, &[("x-forwarded-for", address)]).await;
        (tail.response.status().as_u16(), tail)
    };
    let (first, _held) = from("203.0.113.9").await;
    let (again, _) = from("198.51.100.1, 203.0.113.9").await;
    let (other, _other) = from("203.0.113.10").await;
    assert_eq!((first, again, other), (200, 429, 200));
    stack.stop().await;
}
