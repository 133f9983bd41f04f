//! Filter, then count; junk is refused with the reason.

#![allow(clippy::unwrap_used, reason = "a helper's panic fails its test")]

mod support;

use std::time::Duration;

use bus::Timestamp;
use http::StatusCode;
use streamer::Config;
use support::*;

const HOUR: Duration = Duration::from_secs(3600);

async fn texts(stack: &Stack, query: &str) -> Vec<String> {
    let (status, body) = stack
        .get_all(&format!("/api/apps/shop/logs?follow=False&{query}"))
        .await;
    assert_eq!(status, StatusCode::OK, "{query}: {body}");
    body.lines().map(|line| said(line).to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_filter_takes_what_it_names_and_lines_are_counted_behind_it() {
    let stack = Stack::start(Config::default()).await;
    let (web1, web2, job) = (stream("web-1", HOUR), stream("web-2", HOUR), stream("job", HOUR));
    stack
        .publish([
            saying(
                &web1,
                0,
                &["GET /a 200", r#"{"level":"error","msg":"x"}"#, "GET /b 500"],
            ),
            saying_at(&web2, 0, 3, &["GET /c 200", "level=warn msg=slow"]),
            saying_at(&job, 0, 5, &["GET nothing", r#"{"level":"info"}"#]),
        ])
        .await;
    let all = texts(&stack, "").await;
    assert_eq!(all.len(), 7);
    for (query, wanted) in [
        ("process=web-2", &all[3..5]),
        ("process=web-*", &all[..5]),
        ("process=web", &[]),
        ("process=*", &all[..]),
        ("origin=app", &all[..]),
        ("origin=tributary", &[]),
        ("contains=GET%20/", &[all[0].clone(), all[2].clone(), all[3].clone()]),
        ("regex=%5EGET+/%5Bbc%5D", &all[2..4]),
        ("regex=%5E%5C%7B", &[all[1].clone(), all[6].clone()]),
        ("level=error", &all[1..2]),
        ("level=warning,error", &[all[1].clone(), all[4].clone()]),
        ("since=2026-11-23T07:00:00.005Z", &all[5..]),
        ("until=2026-11-23T07:00:00.001Z", &all[..2]),
        ("contains=GET&process=web-*&num_lines=2", &all[2..4]),
        ("num_lines=1&contains=GET%20/a", &all[..1]),
        (
            "since=2026-11-23T07:00:00.001Z&until=2026-11-23T07:00:00.005Z&num_lines=2",
            &all[4..6],
        ),
    ] {
        assert_eq!(texts(&stack, query).await, wanted, "{query}");
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn history_is_filtered_before_it_is_counted_however_far_back_that_leads() {
    let stack = Stack::start(Config::default()).await;
    let (web, job) = (stream("web", HOUR), stream("job", HOUR));
    stack.publish([saying(&job, 0, &["needle 0", "needle 1"])]).await;
    for seq in (0..60_000).step_by(1000) {
        stack.publish([lines(&web, seq, seq + 1000)]).await;
    }
    assert_eq!(
        texts(&stack, "contains=needle&num_lines=5").await,
        ["needle 0", "needle 1"]
    );
    let mut tail = stack.get("/api/apps/shop/logs?regex=needle&num_lines=1").await;
    assert_eq!(said(&tail.line().await.unwrap()), "needle 1");
    // Of what is live, only what matches; from the ring too.
    stack
        .publish([
            lines(&web, 60_000, 60_050),
            saying_at(&job, 2, 60_050, &["hay", "needle 3"]),
        ])
        .await;
    assert_eq!(said(&tail.line().await.unwrap()), "needle 3");
    let mut warm = stack.get("/api/apps/shop/logs?contains=needle&num_lines=2").await;
    let found = warm.lines(2).await;
    assert_eq!(
        found.iter().map(|line| said(line)).collect::<Vec<_>>(),
        ["needle 1", "needle 3"]
    );
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn since_is_how_long_ago_and_until_ends_a_tail() {
    let stack = Stack::start(Config::default()).await;
    let (old, new) = (stream("old", HOUR), stream("new", HOUR));
    stack.publish([lines(&old, 0, 50)]).await;
    let now = Timestamp::now();
    let data = format!("{now} fresh\n");
    let fresh = bus::Batch {
        content: bus::Content::Lines {
            data: data.into(),
            lines: 1,
            part: None,
        },
        ..lines(&new, 0, 1)
    };
    stack.publish([fresh]).await;
    assert_eq!(texts(&stack, "since=15m").await, ["fresh"]);
    let soon = Timestamp(now.0 + 300_000_000);
    let mut tail = stack.get(&format!("/api/apps/shop/logs?since=15m&until={soon}")).await;
    assert_eq!(
        tail.read_to_end().await.lines().map(said).collect::<Vec<_>>(),
        ["fresh"],
        "and it ends"
    );
    let mut over = stack.get("/api/apps/shop/logs?until=2026-11-23T07:00:00.001Z").await;
    assert_eq!(
        over.read_to_end().await.lines().count(),
        2,
        "nothing can follow what is past"
    );
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_is_told_to_those_who_read_its_process() {
    let stack = Stack::start(Config::default()).await;
    let (web, job) = (stream("web", HOUR), stream("job", HOUR));
    stack
        .publish([
            lines(&web, 0, 2),
            loss(&web, 2, 4),
            lines(&web, 4, 5),
            lines(&job, 0, 1),
        ])
        .await;
    let of_web = texts(&stack, "process=web&contains=0").await;
    assert_eq!(of_web.len(), 2);
    assert!(of_web[1].starts_with("Error L12: 2 messages of web"), "{of_web:?}");
    assert_eq!(texts(&stack, "process=job").await, ["0"]);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn junk_is_refused_in_one_ascii_line_that_says_why() {
    let stack = Stack::start(Config::default()).await;
    stack.publish([lines(&stream("web", HOUR), 0, 1)]).await;
    for (query, reason) in [
        ("since=yesterday", "since: give a time such as"),
        ("until=soon", "until: give a time such as"),
        ("since=5m&until=10m", "until: give a time after since"),
        ("process=", "process: give a value"),
        ("regex=(", "regex: unclosed group"),
        ("regex=%C3%A4(", "regex: unclosed group"),
        ("regex=(a%7B1000%7D)%7B1000%7D", "regex: it is too large when compiled"),
        ("level=loud", "level: give trace, debug"),
        ("cursor=nonsense", "cursor: not a cursor of this service"),
        ("cursor=AQD__________wEA", "cursor: "),
    ] {
        let (status, body) = stack
            .get_all_unterminated(&format!("/api/apps/shop/logs?{query}"))
            .await;
        assert_eq!(status, 422, "{query}");
        let errors: serde_json::Value = serde_json::from_str(&body).unwrap();
        let said = errors["errors"][""][0].as_str().unwrap();
        assert!(said.starts_with(reason), "{query}: {body}");
        assert!(body.is_ascii() && !body.contains('\n'), "{query}: {body}");
    }
    let id = [("accept", "text/event-stream"), ("last-event-id", "nonsense")];
    assert_eq!(stack.get_with("/api/apps/shop/logs", &id).await.response.status(), 422);
    stack.stop().await;
}
