//! History, live lines, gap notices, and the end of a response.

#![allow(clippy::unwrap_used, reason = "a panic in a helper fails the test")]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests use the operating system directly"
)]

mod support;

use std::{collections::HashMap, sync::Arc, time::Duration};

use bus::{Bus, PublishTime};
use http::StatusCode;
use streamer::Config;
use support::*;
use tokio_util::sync::CancellationToken;

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test(flavor = "multi_thread")]
async fn history_is_sent_in_the_text_layout_and_the_body_ends() {
    let stack = Stack::start(Config::default()).await;
    let web = stream("web-7d4b9c-x2x9z", HOUR);
    stack.publish([lines(&web, 0, 60), lines(&web, 60, 100)]).await;
    let (status, body) = stack.get_all("/api/apps/shop/logs?num_lines=50&follow=False").await;
    assert_eq!(status, StatusCode::OK);
    let all: Vec<&str> = body.lines().collect();
    assert_eq!(all.len(), 50);
    assert_eq!(all[0], "2026-11-23T07:00:00.050000+00:00 shop[web-7d4b9c-x2x9z]: 50");
    assert_eq!(all[49], "2026-11-23T07:00:00.099000+00:00 shop[web-7d4b9c-x2x9z]: 99");
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn history_is_merged_by_time_and_keeps_stream_order() {
    let stack = Stack::start(Config::default()).await;
    let (web, job) = (stream("web", HOUR), stream("job", HOUR));
    stack.publish([lines(&web, 0, 50), spaced(&job, 0, 10, 5)]).await;
    let (_, body) = stack.get_all("/api/apps/shop/logs?follow=0").await;
    let all: Vec<&str> = body.lines().collect();
    assert_eq!(all.len(), 60);
    assert!(all.is_sorted_by_key(|line| line.split(' ').next()), "sorted by time");
    for process in ["[web]", "[job]"] {
        let seqs: Vec<u64> = all
            .iter()
            .filter(|line| line.contains(process))
            .map(|line| text_of(line).parse().unwrap())
            .collect();
        assert!(seqs.is_sorted() && seqs[0] == 0, "{process} in order");
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_receives_history_then_live_lines() {
    let stack = Stack::start(Config::default()).await;
    let web = stream("web", HOUR);
    stack.publish([lines(&web, 0, 30)]).await;
    let mut tail = stack.get("/api/apps/shop/logs?num_lines=5").await;
    assert_eq!(tail.response.headers()["content-type"], "text/plain; charset=utf-8");
    assert_eq!(
        tail.lines(5).await.iter().map(|line| text_of(line)).collect::<Vec<_>>(),
        ["25", "26", "27", "28", "29"]
    );
    stack.publish([lines(&web, 30, 32)]).await;
    assert_eq!(
        tail.lines(2).await.iter().map(|line| text_of(line)).collect::<Vec<_>>(),
        ["30", "31"]
    );
    let mut live_only = stack.get("/api/apps/shop/logs?num_lines=0&follow=true").await;
    let mut joined = stack.get("/api/apps/shop/logs?num_lines=1").await;
    stack.publish([lines(&web, 32, 33)]).await;
    assert_eq!(text_of(&live_only.line().await.unwrap()), "32");
    assert_eq!(
        joined
            .lines(2)
            .await
            .iter()
            .map(|line| text_of(line))
            .collect::<Vec<_>>(),
        ["31", "32"],
        "from the ring of the open hub"
    );
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tails_that_join_while_lines_arrive_receive_every_line_once() {
    let stack = Arc::new(Stack::start(Config::default()).await);
    let processes = ["a", "b", "c"];
    let total = 3000;
    let streams = processes.map(|process| stream(process, Duration::ZERO));
    stack.publish(streams.iter().map(|web| lines(web, 0, 1))).await;
    let publishers = streams.map(|web| {
        let bus = Arc::clone(&stack.bus);
        tokio::spawn(async move {
            for seq in (1..total).step_by(3) {
                bus.publish(lines(&web, seq, (seq + 3).min(total))).await.unwrap();
            }
        })
    });
    let mut tails = Vec::new();
    for _ in 0..12 {
        let stack = Arc::clone(&stack);
        tails.push(tokio::spawn(async move {
            let mut tail = stack.get("/api/apps/shop/logs?num_lines=1000000").await;
            let mut next: HashMap<String, u64> = HashMap::new();
            for _ in 0..total * 3 {
                let line = tail.line().await.unwrap();
                let process = line.split(['[', ']']).nth(1).unwrap().to_owned();
                let expected = next.entry(process).or_default();
                assert_eq!(text_of(&line), expected.to_string(), "{line}");
                *expected += 1;
            }
        }));
        // The next tail joins later.
        let seen = PublishTime::now();
        while PublishTime::now().since(seen) < Duration::from_millis(20) {
            tokio::task::yield_now().await;
        }
    }
    for publisher in publishers {
        publisher.await.unwrap();
    }
    for tail in tails {
        tail.await.unwrap();
    }
    Arc::into_inner(stack).unwrap().stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_gap_is_reported_once_between_its_neighbouring_lines() {
    let stack = Stack::start(Config::default()).await;
    let web = stream("web", Duration::ZERO);
    stack
        .publish([
            lines(&web, 0, 2),
            gap(&web, 2, 12),
            lines(&web, 12, 13),
            lines(&web, 20, 21),
            gap(&web, 21, 21),
            lines(&web, 21, 22),
        ])
        .await;
    let expected = [
        "0",
        "1",
        "Error L12: 10 lines of web dropped (seq 2 to 11): the collector's spool was full",
        "12",
        "Error L13: 7 lines of web lost (seq 13 to 19): not delivered by the bus",
        "20",
        "Error L12: an unknown number of lines of web dropped before seq 21: the collector's spool was full",
        "21",
    ];
    let (_, history) = stack.get_all("/api/apps/shop/logs?follow=False").await;
    assert_eq!(history.lines().map(text_of).collect::<Vec<_>>(), expected);
    let mut tail = stack.get("/api/apps/shop/logs").await;
    assert_eq!(
        tail.lines(8).await.iter().map(|line| text_of(line)).collect::<Vec<_>>(),
        expected
    );
    stack.publish([gap(&web, 22, 23), lines(&web, 23, 24)]).await;
    let live = tail.lines(2).await;
    assert!(
        live[0].contains(" shop[tributary]: Error L12: 1 line of web dropped (seq 22)"),
        "{}",
        live[0]
    );
    assert_eq!(text_of(&live[1]), "23");
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_precedes_the_next_line_even_if_the_hub_has_no_earlier_line_of_the_stream() {
    let stack = Stack::start(Config::default()).await;
    let web = stream("web", HOUR);
    stack.publish([lines(&web, 0, 1)]).await;
    let mut tail = stack.get("/api/apps/shop/logs?num_lines=0").await;
    // Concurrently, so that the hub handles the gap and the line in one pass.
    let (first, second) = tokio::join!(stack.bus.publish(gap(&web, 1, 3)), stack.bus.publish(lines(&web, 3, 4)));
    first.unwrap();
    second.unwrap();
    let live = tail.lines(2).await;
    assert!(text_of(&live[0]).starts_with("Error L12: 2 lines of web"), "{live:?}");
    assert_eq!(text_of(&live[1]), "3");
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_client_receives_the_number_of_skipped_lines() {
    let stack = Stack::start(Config {
        ring_bytes: 256 * 1024,
        max_lag: Duration::ZERO,
        ..Config::default()
    })
    .await;
    let web = stream("web", Duration::ZERO);
    stack.publish([lines(&web, 0, 1)]).await;
    let mut tail = stack.get("/api/apps/shop/logs").await;
    assert_eq!(text_of(&tail.line().await.unwrap()), "0");
    // The tail reads nothing while more lines arrive than the ring and the sockets hold.
    let total = 400_000;
    for seq in (1..total).step_by(1000) {
        stack.publish([lines(&web, seq, (seq + 1000).min(total))]).await;
    }
    let (mut received, mut skipped, mut next) = (0, 0, 1);
    while received + skipped < total - 1 {
        let line = tail.line().await.unwrap();
        let text = text_of(&line);
        if let Some((_, count)) = text.split_once("This tail session dropped ") {
            let count: u64 = count.split(' ').next().unwrap().parse().unwrap();
            skipped += count;
            next += count;
        } else {
            assert_eq!(
                text,
                next.to_string(),
                "the notice has the exact number of skipped lines"
            );
            received += 1;
            next += 1;
        }
    }
    assert!(skipped > 0, "lines were skipped");
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn backpressure_protects_a_reading_client_from_a_burst_larger_than_the_ring() {
    let stack = Stack::start(Config {
        ring_bytes: 256 * 1024,
        ..Config::default()
    })
    .await;
    let web = stream("web", Duration::ZERO);
    stack.publish([lines(&web, 0, 1)]).await;
    let mut tail = stack.get("/api/apps/shop/logs").await;
    assert_eq!(text_of(&tail.line().await.unwrap()), "0");
    let total = 100_000;
    for seq in (1..total).step_by(1000) {
        stack.publish([lines(&web, seq, (seq + 1000).min(total))]).await;
    }
    for seq in 1..total {
        assert_eq!(text_of(&tail.line().await.unwrap()), seq.to_string());
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_of_an_app_without_lines_waits() {
    let stack = Stack::start(Config::default()).await;
    stack.bus.create(&"shop".parse().unwrap()).await.unwrap();
    let mut tail = stack.get("/api/apps/shop/logs").await;
    assert_eq!(tail.response.status(), StatusCode::OK, "headers are sent immediately");
    stack.publish([lines(&stream("web", Duration::ZERO), 0, 1)]).await;
    assert_eq!(text_of(&tail.line().await.unwrap()), "0");
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_shutdown_a_tail_receives_all_published_lines_and_the_body_ends() {
    let stack = Stack::start(Config::default()).await;
    let web = stream("web", Duration::ZERO);
    stack.publish([lines(&web, 0, 1)]).await;
    let mut tail = stack.get("/api/apps/shop/logs").await;
    assert_eq!(text_of(&tail.line().await.unwrap()), "0");
    stack.publish([lines(&web, 1, 100)]).await;
    stack.shutdown.cancel();
    assert_eq!(tail.read_to_end().await.lines().count(), 99);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_that_closed_when_idle_opens_again() {
    let stack = Stack::start(Config {
        idle_subscription_timeout: Duration::ZERO,
        ..Config::default()
    })
    .await;
    let web = stream("web", HOUR);
    for round in 0..20 {
        stack.publish([lines(&web, round, round + 1)]).await;
        let mut tail = stack.get("/api/apps/shop/logs?num_lines=1").await;
        // If the previous hub is still open, its newest line may be the previous one.
        let first = tail.line().await.unwrap();
        if text_of(&first) != round.to_string() {
            assert_eq!(text_of(&first), (round - 1).to_string());
            assert_eq!(text_of(&tail.line().await.unwrap()), round.to_string());
        }
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_are_one_ascii_line_with_the_cause() {
    let stack = Stack::start(Config::default()).await;
    stack.bus.create(&"shop".parse().unwrap()).await.unwrap();
    for (path, status, reason) in [
        ("/api/apps/nope/logs", 404, "app not found"),
        ("/api/apps/nope/logs?follow=False", 404, "app not found"),
        ("/api/apps/no%20name/logs", 404, "app not found"),
        ("/api/apps//logs", 404, "app not found"),
        ("/api/apps/%ff/logs", 404, "app not found"),
        ("/nowhere", 404, "path not found"),
        (
            "/api/apps/shop/logs?num_lines=abc",
            422,
            "num_lines: invalid value 'abc'; give a number of lines",
        ),
        (
            "/api/apps/shop/logs?follow=maybe",
            422,
            "follow: invalid value 'maybe'; give true or false",
        ),
    ] {
        let (found, body) = stack.get_all_unterminated(path).await;
        assert_eq!(found, status, "{path}");
        let errors: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert!(
            errors["errors"][""][0].as_str().unwrap().starts_with(reason),
            "{path}: {body}"
        );
        assert!(body.is_ascii() && !body.contains('\n'), "{path}: {body}");
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_starts_with_two_slashes_is_accepted() {
    let stack = Stack::start(Config::default()).await;
    stack.publish([lines(&stream("web", HOUR), 0, 3)]).await;
    let (status, body) = stack.get_all("//api/apps/shop/logs?follow=False&num_lines=2").await;
    assert_eq!((status, body.lines().count()), (StatusCode::OK, 2));
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_openapi_description_contains_every_route() {
    let stack = Stack::start(Config::default()).await;
    let (status, body) = stack.get_all_unterminated("/openapi.json").await;
    assert_eq!(status, 200);
    let description: serde_json::Value = serde_json::from_str(&body).unwrap();
    let paths: Vec<&String> = description["paths"].as_object().unwrap().keys().collect();
    let routes = [
        "/api/apps/{app}/drains",
        "/api/apps/{app}/drains/{id}",
        "/api/apps/{app}/drains/{id}/test",
        "/api/apps/{app}/log-sessions",
        "/api/apps/{app}/logs",
        "/api/login",
        "/api/users",
        "/healthz",
        "/readyz",
    ];
    assert_eq!(paths, routes);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hub_of_a_busy_app_closes_after_its_last_tail() {
    let stack = Stack::start(Config {
        idle_subscription_timeout: Duration::from_millis(5),
        ..Config::default()
    })
    .await;
    let web = stream("web", HOUR);
    stack.publish([lines(&web, 0, 1)]).await;
    let (bus, publishing) = (Arc::clone(&stack.bus), CancellationToken::new());
    let stop = publishing.clone();
    let publisher = tokio::spawn(async move {
        let mut seq = 1;
        while !stop.is_cancelled() {
            bus.publish(lines(&web, seq, seq + 1)).await.unwrap();
            seq += 1;
        }
    });
    let mut tail = stack.get("/api/apps/shop/logs").await;
    tail.lines(100).await;
    assert_eq!(stack.metric("tributary_streamer_active_apps"), 1);
    drop(tail);
    tokio::time::timeout(TIMEOUT, async {
        while stack.metric("tributary_streamer_active_apps") > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the hub closes although lines keep arriving");
    // Shutdown does not wait for the app to become idle either.
    let mut tail = stack.get("/api/apps/shop/logs").await;
    tail.lines(100).await;
    stack.stop().await;
    publishing.cancel();
    publisher.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn history_is_complete_or_reported_as_truncated() {
    let stack = Stack::start(Config {
        history_bytes: 400_000,
        ..Config::default()
    })
    .await;
    let web = stream("web", HOUR);
    stack
        .publish((0..50).map(|batch| padded(&web, batch * 20, batch * 20 + 20, 1000)))
        .await;
    for wanted in [1, 100, 250, 350, 400, 500, 900, 1000, 5000] {
        let (_, body) = stack
            .get_all(&format!("/api/apps/shop/logs?follow=False&num_lines={wanted}"))
            .await;
        let (notices, seqs): (Vec<&str>, Vec<&str>) = body
            .lines()
            .map(text_of)
            .partition(|text| text.starts_with("Error L15"));
        let seqs: Vec<u64> = seqs
            .iter()
            .map(|text| text.trim_end_matches('x').parse().unwrap())
            .collect();
        assert!(
            seqs.windows(2).all(|pair| pair[0] + 1 == pair[1]) && seqs.last() == Some(&999),
            "the newest lines without a gap"
        );
        let is_complete = seqs.len() == wanted.min(1000);
        assert_eq!(
            notices.len(),
            usize::from(!is_complete),
            "{} of {wanted} lines, {notices:?}",
            seqs.len()
        );
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_missing_from_one_history_read_is_reread_or_reported() {
    for (times, gaps) in [(4, 0), (u64::MAX, 1)] {
        // Three short lookbacks and the first complete read lack the batch; with u64::MAX all do.
        let stack = Stack::with_lossy_bus(20, times).await;
        let web = stream("web", HOUR);
        stack
            .publish([0, 10, 20, 30].map(|seq| lines(&web, seq, seq + 10)))
            .await;
        let (_, body) = stack.get_all("/api/apps/shop/logs?follow=False").await;
        let (notices, texts): (Vec<&str>, Vec<&str>) =
            body.lines().map(text_of).partition(|text| text.starts_with("Error"));
        let seqs: Vec<u64> = texts.iter().map(|text| text.parse().unwrap()).collect();
        let missing = if gaps == 0 { 0..0 } else { 20..30 };
        assert_eq!(seqs, (0..40).filter(|seq| !missing.contains(seq)).collect::<Vec<_>>());
        assert_eq!(notices.len(), gaps, "{notices:?}");
        notices
            .iter()
            .for_each(|notice| assert!(notice.contains("10 lines of web lost (seq 20 to 29)"), "{notice}"));
        stack.stop().await;
    }
}
