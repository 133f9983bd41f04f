//! Resuming from a cursor, without gaps and repeats on any replica, and the number of history
//! reads.

#![allow(clippy::unwrap_used, reason = "a panic in a helper fails the test")]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests use the operating system directly"
)]

mod support;

use std::{sync::Arc, time::Duration};

use bus::{
    Bus, EmbeddedSettings, PublishTime, StreamProgress,
    cursor::{Cursor, StreamKey},
};
use futures::future::join_all;
use streamer::Config;
use support::*;

const HOUR: Duration = Duration::from_secs(3600);
const SSE: (&str, &str) = ("accept", "text/event-stream");

/// Resumes from a cursor and reads `count` lines. Returns their sequence numbers and the last
/// cursor.
async fn resume(stack: &Stack, cursor: &str, count: usize) -> (Vec<u64>, String) {
    let headers = [SSE, ("last-event-id", cursor)];
    stack.get_with("/api/apps/shop/logs", &headers).await.seqs(count).await
}

/// Reads up to the next cursor.
async fn next_cursor(tail: &mut Reading) -> String {
    loop {
        if let Some(id) = tail.event().await.expect("more events").id {
            return id;
        }
    }
}

/// Reads up to a cursor after the sequence number `next - 1` of some stream.
async fn cursor_behind(tail: &mut Reading, next: u64) -> String {
    loop {
        let Some(id) = tail.event().await.expect("more events").id else {
            continue;
        };
        let cursor = Cursor::decode(&id).unwrap();
        if cursor.streams.iter().any(|(_, position)| position.next() == next) {
            return id;
        }
    }
}

/// Returns a configuration with a short heartbeat: an idle event stream sends a cursor with each.
fn short_heartbeat() -> Config {
    Config {
        heartbeat: Duration::from_millis(20),
        ..Config::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn last_event_id_resumes_without_gaps_and_repeats_on_any_replica() {
    let stack = Stack::start(short_heartbeat()).await;
    let web = stream("web", HOUR);
    stack.publish([lines(&web, 0, 100)]).await;
    let mut tail = stack.get_with("/api/apps/shop/logs?num_lines=10", &[SSE]).await;
    let (seqs, mut id) = tail.seqs(10).await;
    assert_eq!(seqs, (90..100).collect::<Vec<_>>());
    drop(tail);
    let replica = stack.replica(short_heartbeat()).await;
    for round in 0..6 {
        let first = 100 + round * 10;
        stack.publish([lines(&web, first, first + 10)]).await;
        let server = if round % 2 == 0 { &replica } else { &stack };
        let mut tail = server
            .get_with("/api/apps/shop/logs", &[SSE, ("last-event-id", &id)])
            .await;
        let (seqs, _) = tail.seqs(10).await;
        assert_eq!(seqs, (first..first + 10).collect::<Vec<_>>());
        // Wait for a cursor after the lines; an earlier one would repeat them.
        id = next_cursor(&mut tail).await;
    }
    replica.stop().await;
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_alternates_between_replicas_receives_every_line_once() {
    let first = Stack::start(Config::default()).await;
    let second = first.replica(Config::default()).await;
    let (web, total) = (stream("web", Duration::ZERO), 6000);
    first.publish([lines(&web, 0, 1)]).await;
    let bus = Arc::clone(&first.bus);
    let metadata = Arc::clone(&web);
    let publisher = tokio::spawn(async move {
        for seq in (1..total).step_by(7) {
            bus.publish(lines(&metadata, seq, (seq + 7).min(total))).await.unwrap();
        }
    });
    // Each response is dropped at its first cursor; lines after the cursor are read again.
    let mut received: Vec<u64> = Vec::new();
    let mut id: Option<String> = None;
    for turn in 0.. {
        assert!(
            turn < 20_000,
            "no progress: {} of {total}, {id:?}, {:?}",
            received.len(),
            publisher.is_finished()
        );
        let stack = if turn % 2 == 0 { &first } else { &second };
        let mut headers = vec![SSE];
        headers.extend(id.as_deref().map(|id| ("last-event-id", id)));
        // More than the default of 100 lines may have been published before the first request.
        let mut tail = stack.get_with("/api/apps/shop/logs?num_lines=6000", &headers).await;
        let mut since_id = Vec::new();
        while received.len() < usize::try_from(total).unwrap() {
            let event = tail.event().await.unwrap();
            if let Some(data) = event.data {
                assert!(data["notice"].is_null(), "{data}");
                since_id.push(data["seq"].as_u64().unwrap());
            }
            if let Some(cursor) = event.id {
                received.append(&mut since_id);
                id = Some(cursor);
                break;
            }
        }
        if received.len() >= usize::try_from(total).unwrap() {
            break;
        }
    }
    assert_eq!(received, (0..total).collect::<Vec<_>>());
    publisher.await.unwrap();
    first.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_missing_from_the_cursor_is_repeated_only_if_it_is_newer() {
    let stack = Stack::start(Config::default()).await;
    // Three pods logged before the tail, which requests ten lines; the hub reads none of them live.
    let pods = ["a", "b", "c"].map(|process| stream(process, HOUR));
    for pod in &pods {
        stack.publish([lines(pod, 0, 20)]).await;
    }
    let mut tail = stack.get_with("/api/apps/shop/logs?num_lines=10", &[SSE]).await;
    let (_, id) = tail.seqs(10).await;
    drop(tail);
    // A new pod logs while there is no tail.
    stack.publish([lines(&stream("new", Duration::ZERO), 0, 5)]).await;
    let replica = stack.replica(Config::default()).await;
    let mut tail = replica.get(&format!("/api/apps/shop/logs?cursor={id}")).await;
    for seq in 0..5 {
        let line = tail.line().await.unwrap();
        assert!(
            line.contains(&format!("shop[new]: {seq}")),
            "no repeats and no gaps: {line}"
        );
    }
    replica.stop().await;
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_outstanding_at_the_cursor_are_delivered_after_the_resume() {
    let stack = Stack::start(short_heartbeat()).await;
    let web = stream("web", Duration::ZERO);
    stack.publish([lines(&web, 0, 1)]).await;
    let mut tail = stack.get_with("/api/apps/shop/logs", &[SSE]).await;
    stack.publish([lines(&web, 1, 100), lines(&web, 150, 200)]).await;
    tail.seqs(150).await;
    let (id, next) = (cursor_behind(&mut tail, 200).await, 200);
    drop(tail);
    stack
        .publish([lines(&web, 100, 150), lines(&web, next, next + 1)])
        .await;
    let replica = stack.replica(Config::default()).await;
    let headers = [("accept", "application/x-ndjson")];
    let mut tail = replica
        .get_with(&format!("/api/apps/shop/logs?cursor={id}"), &headers)
        .await;
    let mut more = Vec::new();
    while more.len() < 51 {
        let line = tail.json().await;
        assert!(line["notice"].is_null(), "the gap was reported before: {line}");
        more.push(line["seq"].as_u64().unwrap());
    }
    more.sort_unstable();
    assert_eq!(more, (100..150).chain([next]).collect::<Vec<_>>());
    replica.stop().await;
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_older_than_history_is_reported() {
    let limits = EmbeddedSettings {
        retention: HOUR,
        retention_bytes: 16 << 20,
    };
    let stack = Stack::start_with(short_heartbeat(), limits).await;
    let web = stream("web", HOUR);
    stack.publish([lines(&web, 0, 5)]).await;
    let mut tail = stack.get_with("/api/apps/shop/logs", &[SSE]).await;
    stack.publish([lines(&web, 5, 10)]).await;
    let id = cursor_behind(&mut tail, 10).await;
    drop(tail);
    // Far more than the bus retains.
    let total = 10 + 40 * 1000;
    for seq in (10..total).step_by(1000) {
        stack.publish([padded(&web, seq, seq + 1000, 1000)]).await;
    }
    let replica = stack.replica(Config::default()).await;
    let json = [("accept", "application/x-ndjson")];
    let path = format!("/api/apps/shop/logs?follow=False&cursor={id}");
    let mut reading = replica.get_with(&path, &json).await;
    let notice = reading.json().await;
    assert!(
        notice["text"]
            .as_str()
            .unwrap()
            .contains("the cursor is older than the stored history"),
        "{notice}"
    );
    assert_eq!(notice["notice"]["reason"], "expired");
    let gap = reading.json().await;
    assert!(gap["notice"]["count"].is_u64(), "{gap}");
    let (first, count) = (&gap["notice"]["first"], gap["notice"]["count"].as_u64().unwrap());
    assert_eq!(*first, 10, "the number is known for a stream in the cursor: {gap}");
    let mut next = 10 + count;
    while let Some(line) = reading.line().await {
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(line["seq"], next);
        next += 1;
    }
    assert_eq!(next, total);
    replica.stop().await;
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coarse_cursor_never_skips_lines() {
    let stack = Stack::start(Config::default()).await;
    let web = stream("web", HOUR);
    stack.publish([lines(&web, 0, 10)]).await;
    let before = PublishTime::now();
    stack.publish([lines(&web, 10, 20)]).await;
    let coarse = Cursor {
        before,
        streams: Vec::new(),
        coarse: true,
    };
    let path = format!("/api/apps/shop/logs?follow=False&cursor={}", coarse.encode());
    let (_, body) = stack.get_all(&path).await;
    let seqs: Vec<u64> = body.lines().map(|line| text_of(line).parse().unwrap()).collect();
    assert_eq!(seqs, (10..20).collect::<Vec<_>>());
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_event_of_a_burst_is_covered_by_a_cursor_within_a_second() {
    let stack = Stack::start(Config::default()).await;
    let web = stream("web", HOUR);
    stack.publish([lines(&web, 0, 1)]).await;
    let mut tail = stack.get_with("/api/apps/shop/logs?num_lines=1", &[SSE]).await;
    tail.seqs(1).await;
    // Two writes at once: the second may have no cursor of its own.
    for seq in 1..5 {
        stack.publish([lines(&web, seq, seq + 1)]).await;
    }
    let started = std::time::Instant::now();
    let (mut last, mut covered) = (0, 0);
    while covered < 5 {
        let event = tail.event().await.unwrap();
        last = event.data.and_then(|data| data["seq"].as_u64()).unwrap_or(last);
        if let Some(id) = event.id {
            let cursor = Cursor::decode(&id).unwrap();
            covered = cursor
                .streams
                .iter()
                .map(|(_, progress)| progress.next())
                .max()
                .unwrap();
            assert_eq!(covered, last + 1, "a cursor covers the events before it and its own");
        }
    }
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_complete_answer_ends_with_an_id_that_stops_an_event_source() {
    let stack = Stack::start(Config::default()).await;
    let web = stream("web", HOUR);
    stack.publish([lines(&web, 0, 3)]).await;
    let path = "/api/apps/shop/logs?follow=false";
    let mut reading = stack.get_with(path, &[SSE]).await;
    let (mut seqs, mut id) = (Vec::new(), None);
    while let Some(event) = reading.event().await {
        seqs.extend(event.data.and_then(|data| data["seq"].as_u64()));
        id = event.id.or(id);
    }
    let id = id.unwrap();
    assert_eq!((seqs, &id[..2]), (vec![0, 1, 2], "f."));
    let again = stack.get_with(path, &[SSE, ("last-event-id", &id)]).await;
    assert_eq!(again.response.status(), 204);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn last_event_id_is_newer_than_the_cursor_in_the_url() {
    let stack = Stack::start(short_heartbeat()).await;
    let web = stream("web", Duration::ZERO);
    stack.publish([lines(&web, 0, 5)]).await;
    let mut tail = stack.get_with("/api/apps/shop/logs", &[SSE]).await;
    stack.publish([lines(&web, 5, 6)]).await;
    let older = cursor_behind(&mut tail, 6).await;
    stack.publish([lines(&web, 6, 9)]).await;
    let newer = cursor_behind(&mut tail, 9).await;
    stack.publish([lines(&web, 9, 10)]).await;
    let path = format!("/api/apps/shop/logs?cursor={older}");
    let mut resumed = stack.get_with(&path, &[SSE, ("last-event-id", &newer)]).await;
    assert_eq!(resumed.seqs(1).await.0, [9]);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_cursor_is_harmless() {
    let stack = Stack::start(Config::default()).await;
    let web = stream("web", HOUR);
    stack.publish([lines(&web, 0, 10)]).await;
    let forge = |before: u64, next: u64| {
        let position = StreamProgress::new(next, std::iter::once(0..next.min(3)));
        let cursor = Cursor {
            before: PublishTime(before),
            streams: vec![(StreamKey::of(&web.stream), position)],
            coarse: false,
        };
        cursor.encode()
    };
    for (cursor, status) in [
        (forge(0, 1), 200),
        (forge(0, u64::MAX), 200),
        (forge(PublishTime::now().0, 5), 200),
        (forge(u64::MAX, 5), 200),
        ("A".repeat(5000), 422),
    ] {
        let path = format!("/api/apps/shop/logs?follow=False&cursor={cursor}");
        let (found, _) = stack.get_all_unterminated(&path).await;
        assert_eq!(found, status, "{cursor}");
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_with_few_lines_completes_history_from_the_bus() {
    let stack = Stack::start(Config::default()).await;
    let web = stream("web", HOUR);
    stack.publish([lines(&web, 0, 500)]).await;
    let mut first = stack.get("/api/apps/shop/logs?num_lines=0").await;
    stack.publish([lines(&web, 500, 503)]).await;
    first.lines(3).await;
    for _ in 0..3 {
        let mut second = stack.get("/api/apps/shop/logs?num_lines=100").await;
        let found = second.lines(100).await;
        let seqs: Vec<u64> = found.iter().map(|line| text_of(line).parse().unwrap()).collect();
        assert_eq!(seqs, (403..503).collect::<Vec<_>>());
    }
    assert_eq!(
        stack.metric("tributary_streamer_history_reads_total"),
        1,
        "later tails share the read"
    );
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_concurrent_resumes_share_history_reads() {
    let stack = Stack::start(Config::default()).await;
    let web = stream("web", HOUR);
    stack.publish([lines(&web, 0, 10)]).await;
    let tails = 200;
    let cursor = async || {
        let mut tail = stack.get_with("/api/apps/shop/logs?num_lines=1", &[SSE]).await;
        tail.seqs(1).await.1
    };
    let ids = join_all((0..tails).map(|_| cursor())).await;
    stack.publish([lines(&web, 10, 20)]).await;
    let replica = stack.replica(Config::default()).await;
    let resumed = join_all(ids.iter().map(|id| resume(&replica, id, 10))).await;
    for (seqs, _) in resumed {
        assert_eq!(seqs, (10..20).collect::<Vec<_>>());
    }
    let reads = replica.metric("tributary_streamer_history_reads_total");
    assert!(reads <= 2, "{reads} history reads for {tails} tails");
    replica.stop().await;
    stack.stop().await;
}
