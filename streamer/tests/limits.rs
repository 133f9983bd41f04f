//! Slow readers and many readers cost their bound and no more; who is refused is told why.

#![allow(clippy::unwrap_used, reason = "a helper's panic fails its test")]

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
async fn one_tail_too_many_is_refused_with_the_reason_before_anything_is_sent() {
    let stack = Stack::start(Config {
        max_tails: 3,
        max_tails_per_app: 2,
        // This machine's own are not counted: all of the tests' are.
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
    assert_eq!(body, r#"{"errors":{"":["too many tails of this app: 2 of 2"]}}"#);
    let url = format!("ws://{}{LOGS}", stack.addr);
    let upgrade = tokio_tungstenite::connect_async(url).await.unwrap_err();
    assert!(upgrade.to_string().contains("429"), "before the 101: {upgrade}");
    // A request for an app that does not exist takes no place; a reading that has ended gives its place back.
    assert_eq!(stack.get_all_unterminated("/api/apps/nope/logs").await.0, 404);
    drop(tails.pop());
    eventually(&stack, "tributary_streamer_tails", 1).await;
    stack.get_all(&format!("{LOGS}?follow=False")).await;
    eventually(&stack, "tributary_streamer_tails", 1).await;
    tails.push(stack.get(LOGS).await);
    assert_eq!(tails[1].response.status(), 200);
    stack.stop().await;
}

async fn eventually(stack: &Stack, metric: &str, value: u64) {
    let there = async {
        while stack.metric(metric) != value {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(BOUND, there).await.expect(metric);
}

/// A tail that sends its request and never reads.
async fn deaf(stack: &Stack) -> TcpStream {
    let mut connection = TcpStream::connect(stack.addr).await.unwrap();
    let request = format!("GET {LOGS}?num_lines=0 HTTP/1.1\r\nhost: x\r\n\r\n");
    connection.write_all(request.as_bytes()).await.unwrap();
    connection
}

#[tokio::test(flavor = "multi_thread")]
async fn who_takes_nothing_is_closed_and_holds_up_nobody() {
    let stack = Stack::start(Config {
        stall: Duration::from_millis(300),
        ring_bytes: 1 << 20,
        ..Config::default()
    })
    .await;
    let web = stream("web", Duration::ZERO);
    stack.publish([lines(&web, 0, 1)]).await;
    let mut deaf = [deaf(&stack).await, deaf(&stack).await];
    let mut tail = stack.get(&format!("{LOGS}?num_lines=1")).await;
    assert_eq!(said(&tail.line().await.unwrap()), "0");
    eventually(&stack, "tributary_streamer_tails", 3).await;
    let mut next = 1;
    // Until the sockets of those who do not read are full, and for as long as they may be.
    while stack.metric("tributary_streamer_stalled_connections_total") < 2 {
        stack.publish([padded(&web, next, next + 100, 1000)]).await;
        for line in tail.lines(100).await {
            assert_eq!(said(&line).trim_end_matches('x'), next.to_string());
            next += 1;
        }
    }
    eventually(&stack, "tributary_streamer_tails", 1).await;
    for connection in &mut deaf {
        let mut rest = Vec::new();
        // What the kernel held is still there; then the end, or a reset.
        let _ = tokio::time::timeout(BOUND, connection.read_to_end(&mut rest))
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
async fn a_slow_tail_is_told_how_much_it_missed_in_every_format() {
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
    let (mut next, mut missed) = (1, 0);
    while next < total {
        let line = tail.json().await;
        if let Some(seq) = line["seq"].as_u64() {
            assert_eq!(seq, next);
            next += 1;
        } else {
            assert_eq!(line["notice"]["code"], "L11");
            let count = line["notice"]["count"].as_u64().unwrap();
            next += count;
            missed += count;
        }
    }
    assert!(missed > 0, "it was slow");
    assert_eq!(stack.metric("tributary_streamer_overflowed_lines_total"), missed);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_rings_together_keep_no_more_than_they_may() {
    let stack = Stack::start(Config {
        rings_bytes: 2 << 20,
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
        assert_eq!(said(&tail.line().await.unwrap()), "0");
        for seq in (1..4001).step_by(100) {
            stack.publish([padded(&web, seq, seq + 100, 1000)]).await;
            for line in tail.lines(100).await {
                assert!(!line.contains("tributary"), "who keeps up misses nothing: {line}");
            }
        }
        tails.push(tail);
        assert!(stack.metric("tributary_streamer_ring_bytes") < 3 << 20);
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn histories_that_nobody_takes_leave_the_next_a_little_and_say_that_they_are_cut() {
    let stack = Stack::start(Config {
        histories_bytes: 32 << 20,
        ..Config::default()
    })
    .await;
    let web = stream("web", Duration::from_secs(3600));
    // 40 MB: more than all may hold.
    stack
        .publish((0..40).map(|batch| padded(&web, batch * 1000, batch * 1000 + 1000, 1000)))
        .await;
    let mut held = Vec::new();
    for _ in 0..8 {
        // What the kernel takes for it is sent.
        let reader = TcpSocket::new_v4().unwrap();
        reader.set_recv_buffer_size(4096).unwrap();
        let mut reader = reader.connect(stack.addr).await.unwrap();
        let asked = "GET /api/apps/shop/logs?num_lines=40000&follow=False HTTP/1.1\r\nhost: x\r\n\r\n";
        reader.write_all(asked.as_bytes()).await.unwrap();
        let mut head = [0; 12];
        reader.read_exact(&mut head).await.unwrap();
        assert!(head.ends_with(b"200"));
        held.push(reader);
    }
    // A quarter of what was left each time, and its renderings as they were made.
    let bytes = stack.metric("tributary_streamer_history_bytes");
    assert!((8 << 20..48 << 20).contains(&bytes), "{bytes}");
    let (_, body) = stack.get_all("/api/apps/shop/logs?num_lines=40000&follow=False").await;
    assert!(
        body.contains("Error L15: history is cut to its newest"),
        "{:.200}",
        body
    );
    let last = body.lines().last().unwrap();
    assert!(said(last).starts_with("39999x"), "its newest: {last:.80}");
    drop(held);
    eventually(&stack, "tributary_streamer_history_bytes", 0).await;
    let (_, body) = stack.get_all("/api/apps/shop/logs?num_lines=500&follow=False").await;
    assert!(!body.contains("Error"), "there is room again");
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_trusted_proxy_the_limit_is_of_whom_it_names() {
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
