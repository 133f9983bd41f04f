//! Coming back with a cursor: no hole and no repeat, on any replica, as far as history reaches; and what history costs the bus.

#![allow(clippy::unwrap_used, reason = "a helper's panic fails its test")]

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

/// Reads so many lines from here on, and tells where it then is.
async fn resume(stack: &Stack, cursor: &str, count: usize) -> (Vec<u64>, String) {
    let headers = [SSE, ("last-event-id", cursor)];
    stack.get_with("/api/apps/shop/logs", &headers).await.seqs(count).await
}

/// Reads on until told where it is.
async fn next_id(tail: &mut Reading) -> String {
    loop {
        if let Some(id) = tail.event().await.expect("more events").id {
            return id;
        }
    }
}

/// Reads on until told where a stream is dealt with up to this seq.
async fn told_behind(tail: &mut Reading, next: u64) -> String {
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

/// A quiet event stream is told where it is with each heartbeat.
fn lively() -> Config {
    Config {
        heartbeat: Duration::from_millis(20),
        ..Config::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn last_event_id_goes_on_without_a_hole_or_a_repeat_on_any_replica() {
    let stack = Stack::start(lively()).await;
    let web = stream("web", HOUR);
    stack.publish([lines(&web, 0, 100)]).await;
    let mut tail = stack.get_with("/api/apps/shop/logs?num_lines=10", &[SSE]).await;
    let (seqs, mut id) = tail.seqs(10).await;
    assert_eq!(seqs, (90..100).collect::<Vec<_>>());
    drop(tail);
    let replica = stack.replica(lively()).await;
    for round in 0..6 {
        let first = 100 + round * 10;
        stack.publish([lines(&web, first, first + 10)]).await;
        let on = if round % 2 == 0 { &replica } else { &stack };
        let mut tail = on.get_with("/api/apps/shop/logs", &[SSE, ("last-event-id", &id)]).await;
        let (seqs, _) = tail.seqs(10).await;
        assert_eq!(seqs, (first..first + 10).collect::<Vec<_>>());
        // An id that came before the lines is before them, and they would come again behind it.
        id = next_id(&mut tail).await;
    }
    replica.stop().await;
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_of_two_lossy_replicas_in_turn_has_every_seq_once() {
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
    // Each reading is broken off where it happens to be told where it is; what came behind that is read again.
    let mut seen: Vec<u64> = Vec::new();
    let mut id: Option<String> = None;
    for turn in 0.. {
        assert!(
            turn < 20_000,
            "no more comes: {} of {total}, {id:?}, {:?}",
            seen.len(),
            publisher.is_finished()
        );
        let stack = if turn % 2 == 0 { &first } else { &second };
        let mut headers = vec![SSE];
        headers.extend(id.as_deref().map(|id| ("last-event-id", id)));
        // The first reading may come when more is there than a hundred lines.
        let mut tail = stack.get_with("/api/apps/shop/logs?num_lines=6000", &headers).await;
        let mut since_id = Vec::new();
        while seen.len() < usize::try_from(total).unwrap() {
            let event = tail.event().await.unwrap();
            if let Some(data) = event.data {
                assert!(data["notice"].is_null(), "{data}");
                since_id.push(data["seq"].as_u64().unwrap());
            }
            if let Some(told) = event.id {
                seen.append(&mut since_id);
                id = Some(told);
                break;
            }
        }
        if seen.len() >= usize::try_from(total).unwrap() {
            break;
        }
    }
    assert_eq!(seen, (0..total).collect::<Vec<_>>());
    publisher.await.unwrap();
    first.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_the_cursor_does_not_name_is_old_before_its_time_and_new_after() {
    let stack = Stack::start(Config::default()).await;
    // Three pods spoke before the reader came; it asked for ten lines, and the hub never saw them.
    let pods = ["a", "b", "c"].map(|process| stream(process, HOUR));
    for pod in &pods {
        stack.publish([lines(pod, 0, 20)]).await;
    }
    let mut tail = stack.get_with("/api/apps/shop/logs?num_lines=10", &[SSE]).await;
    let (_, id) = tail.seqs(10).await;
    drop(tail);
    // A new pod speaks while nobody reads.
    stack.publish([lines(&stream("new", Duration::ZERO), 0, 5)]).await;
    let replica = stack.replica(Config::default()).await;
    let mut tail = replica.get(&format!("/api/apps/shop/logs?cursor={id}")).await;
    for seq in 0..5 {
        let line = tail.line().await.unwrap();
        assert!(
            line.contains(&format!("shop[new]: {seq}")),
            "nothing again, nothing left out: {line}"
        );
    }
    replica.stop().await;
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_still_to_come_behind_a_higher_seq_comes_after_the_resume() {
    let stack = Stack::start(lively()).await;
    let web = stream("web", Duration::ZERO);
    stack.publish([lines(&web, 0, 1)]).await;
    let mut tail = stack.get_with("/api/apps/shop/logs", &[SSE]).await;
    stack.publish([lines(&web, 1, 100), lines(&web, 150, 200)]).await;
    tail.seqs(150).await;
    let (id, next) = (told_behind(&mut tail, 200).await, 200);
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
        assert!(line["notice"].is_null(), "the gap was told before: {line}");
        more.push(line["seq"].as_u64().unwrap());
    }
    more.sort_unstable();
    assert_eq!(more, (100..150).chain([next]).collect::<Vec<_>>());
    replica.stop().await;
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_history_does_not_reach_the_reader_is_told() {
    let limits = EmbeddedSettings {
        retention: HOUR,
        retention_bytes: 16 << 20,
    };
    let stack = Stack::start_with(lively(), limits).await;
    let web = stream("web", HOUR);
    stack.publish([lines(&web, 0, 5)]).await;
    let mut tail = stack.get_with("/api/apps/shop/logs", &[SSE]).await;
    stack.publish([lines(&web, 5, 10)]).await;
    let id = told_behind(&mut tail, 10).await;
    drop(tail);
    // Far more than is kept.
    let total = 10 + 40 * 1000;
    for seq in (10..total).step_by(1000) {
        stack.publish([padded(&web, seq, seq + 1000, 1000)]).await;
    }
    let replica = stack.replica(Config::default()).await;
    let json = [("accept", "application/x-ndjson")];
    let path = format!("/api/apps/shop/logs?follow=False&cursor={id}");
    let mut reading = replica.get_with(&path, &json).await;
    let told = reading.json().await;
    assert!(
        told["text"]
            .as_str()
            .unwrap()
            .contains("history no longer reaches back"),
        "{told}"
    );
    let gap = reading.json().await;
    assert!(gap["notice"]["count"].is_u64(), "{gap}");
    let (first, count) = (&gap["notice"]["first"], gap["notice"]["count"].as_u64().unwrap());
    assert_eq!(*first, 10, "of a stream that the cursor names, also how many: {gap}");
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
async fn a_coarse_cursor_may_repeat_and_never_skips() {
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
    let seqs: Vec<u64> = body.lines().map(|line| said(line).parse().unwrap()).collect();
    assert_eq!(seqs, (10..20).collect::<Vec<_>>());
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_that_was_made_up_harms_nobody() {
    let stack = Stack::start(Config::default()).await;
    let web = stream("web", HOUR);
    stack.publish([lines(&web, 0, 10)]).await;
    let made_up = |before: u64, next: u64| {
        let position = StreamProgress::new(next, [0..next.min(3)]);
        let cursor = Cursor {
            before: PublishTime(before),
            streams: vec![(StreamKey::of(&web.stream), position)],
            coarse: false,
        };
        cursor.encode()
    };
    for (cursor, status) in [
        (made_up(0, 1), 200),
        (made_up(0, u64::MAX), 200),
        (made_up(PublishTime::now().0, 5), 200),
        (made_up(u64::MAX, 5), 422),
        ("A".repeat(5000), 422),
    ] {
        let path = format!("/api/apps/shop/logs?follow=False&cursor={cursor}");
        let (found, _) = stack.get_all_unterminated(&path).await;
        assert_eq!(found, status, "{cursor}");
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_warm_hub_that_saw_little_still_gives_as_many_lines_as_are_asked_for() {
    let stack = Stack::start(Config::default()).await;
    let web = stream("web", HOUR);
    stack.publish([lines(&web, 0, 500)]).await;
    let mut first = stack.get("/api/apps/shop/logs?num_lines=0").await;
    stack.publish([lines(&web, 500, 503)]).await;
    first.lines(3).await;
    for _ in 0..3 {
        let mut second = stack.get("/api/apps/shop/logs?num_lines=100").await;
        let found = second.lines(100).await;
        let seqs: Vec<u64> = found.iter().map(|line| said(line).parse().unwrap()).collect();
        assert_eq!(seqs, (403..503).collect::<Vec<_>>());
    }
    assert_eq!(
        stack.metric("tributary_streamer_read_backs_total"),
        1,
        "what one read, the next have"
    );
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deploys_many_resumes_are_few_read_backs() {
    let stack = Stack::start(Config::default()).await;
    let web = stream("web", HOUR);
    stack.publish([lines(&web, 0, 10)]).await;
    let tails = 200;
    let tell = async || {
        let mut tail = stack.get_with("/api/apps/shop/logs?num_lines=1", &[SSE]).await;
        tail.seqs(1).await.1
    };
    let ids = join_all((0..tails).map(|_| tell())).await;
    stack.publish([lines(&web, 10, 20)]).await;
    let replica = stack.replica(Config::default()).await;
    let resumed = join_all(ids.iter().map(|id| resume(&replica, id, 10))).await;
    for (seqs, _) in resumed {
        assert_eq!(seqs, (10..20).collect::<Vec<_>>());
    }
    let read_backs = replica.metric("tributary_streamer_read_backs_total");
    assert!(read_backs <= 2, "{read_backs} read-backs for {tails} tails");
    replica.stop().await;
    stack.stop().await;
}
