//! Filters, and errors for invalid parameters.

#![allow(clippy::unwrap_used, reason = "a panic in a helper fails the test")]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests use the operating system directly"
)]

mod support;

use std::time::Duration;

use bus::Timestamp;
use http::StatusCode;
use streamer::Config;
use support::*;

const HOUR: Duration = Duration::from_secs(3600);

async fn history(stack: &Stack, query: &str) -> Vec<String> {
    let (status, body) = stack
        .get_all(&format!("/api/apps/shop/logs?follow=False&{query}"))
        .await;
    assert_eq!(status, StatusCode::OK, "{query}: {body}");
    body.lines().map(|line| text_of(line).to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_filter_selects_matching_lines_and_num_lines_counts_those() {
    let stack = Stack::start(Config::default()).await;
    let (web1, web2, job) = (stream("web-1", HOUR), stream("web-2", HOUR), stream("job", HOUR));
    stack
        .publish([
            texts(
                &web1,
                0,
                &["GET /a 200", r#"{"level":"error","msg":"x"}"#, "GET /b 500"],
            ),
            texts_at(&web2, 0, 3, &["GET /c 200", "level=warn msg=slow"]),
            texts_at(&job, 0, 5, &["GET nothing", r#"{"level":"info"}"#]),
        ])
        .await;
    let all = history(&stack, "").await;
    assert_eq!(all.len(), 7);
    for (query, expected) in [
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
        assert_eq!(history(&stack, query).await, expected, "{query}");
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn filtered_history_reaches_back_as_far_as_needed() {
    let stack = Stack::start(Config::default()).await;
    let (web, job) = (stream("web", HOUR), stream("job", HOUR));
    stack.publish([texts(&job, 0, &["needle 0", "needle 1"])]).await;
    for seq in (0..60_000).step_by(1000) {
        stack.publish([lines(&web, seq, seq + 1000)]).await;
    }
    assert_eq!(
        history(&stack, "contains=needle&num_lines=5").await,
        ["needle 0", "needle 1"]
    );
    let mut tail = stack.get("/api/apps/shop/logs?regex=needle&num_lines=1").await;
    assert_eq!(text_of(&tail.line().await.unwrap()), "needle 1");
    // Live lines are filtered too, also from the ring.
    stack
        .publish([
            lines(&web, 60_000, 60_050),
            texts_at(&job, 2, 60_050, &["hay", "needle 3"]),
        ])
        .await;
    assert_eq!(text_of(&tail.line().await.unwrap()), "needle 3");
    let mut joined = stack.get("/api/apps/shop/logs?contains=needle&num_lines=2").await;
    let found = joined.lines(2).await;
    assert_eq!(
        found.iter().map(|line| text_of(line)).collect::<Vec<_>>(),
        ["needle 1", "needle 3"]
    );
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn since_accepts_an_age_and_until_ends_a_tail() {
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
    assert_eq!(history(&stack, "since=15m").await, ["fresh"]);
    let soon = Timestamp(now.0 + 300_000_000);
    let mut tail = stack.get(&format!("/api/apps/shop/logs?since=15m&until={soon}")).await;
    assert_eq!(
        tail.read_to_end().await.lines().map(text_of).collect::<Vec<_>>(),
        ["fresh"],
        "the tail ends"
    );
    let mut past = stack.get("/api/apps/shop/logs?until=2026-11-23T07:00:00.001Z").await;
    assert_eq!(
        past.read_to_end().await.lines().count(),
        2,
        "a past `until` ends the response after history"
    );
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_notice_matches_if_its_stream_matches() {
    let stack = Stack::start(Config::default()).await;
    let (web, job) = (stream("web", HOUR), stream("job", HOUR));
    stack
        .publish([lines(&web, 0, 2), gap(&web, 2, 4), lines(&web, 4, 5), lines(&job, 0, 1)])
        .await;
    let of_web = history(&stack, "process=web&contains=0").await;
    assert_eq!(of_web.len(), 2);
    assert!(of_web[1].starts_with("Error L12: 2 lines of web"), "{of_web:?}");
    assert_eq!(history(&stack, "process=job").await, ["0"]);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_notice_matches_if_its_span_overlaps_since_and_until() {
    let stack = Stack::start(Config::default()).await;
    let web = stream("web", HOUR);
    // Line n has the time n ms; the gap is between 1 ms and 6 ms.
    stack
        .publish([lines(&web, 0, 2), gap(&web, 2, 6), lines(&web, 6, 8)])
        .await;
    let count = async |query: &str| {
        let found = history(&stack, query).await;
        let notices = found.iter().filter(|line| line.starts_with("Error L12: 4 lines"));
        (found.len(), notices.count())
    };
    for (query, lines, notices) in [
        ("since=2026-11-23T07:00:00.004Z", 3, 1),
        ("since=2026-11-23T07:00:00.007Z", 1, 0),
        ("until=2026-11-23T07:00:00.004Z", 3, 1),
        ("until=2026-11-23T07:00:00Z", 1, 0),
        ("since=2026-11-23T07:00:00.003Z&until=2026-11-23T07:00:00.004Z", 1, 1),
    ] {
        assert_eq!(count(query).await, (lines, notices), "{query}");
    }
    // A gap that no line follows is open-ended.
    stack.publish([gap(&web, 8, 12)]).await;
    assert_eq!(count("since=2026-11-23T07:00:00.009Z").await, (1, 1));
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_parameters_return_one_ascii_line_with_the_cause() {
    let stack = Stack::start(Config::default()).await;
    stack.publish([lines(&stream("web", HOUR), 0, 1)]).await;
    for (query, reason) in [
        (
            "since=yesterday",
            "since: invalid value 'yesterday'; give an RFC 3339 time such as",
        ),
        (
            "until=soon",
            "until: invalid value 'soon'; give an RFC 3339 time such as",
        ),
        (
            "since=5m&until=10m",
            "until: invalid value '10m'; give a time after since",
        ),
        ("process=", "process: the value is empty; give a value"),
        ("regex=(", "regex: unclosed group"),
        ("regex=%C3%A4(", "regex: unclosed group"),
        (
            "regex=(a%7B1000%7D)%7B1000%7D",
            "regex: the compiled expression is too large",
        ),
        ("level=loud", "level: invalid value 'loud'; give trace, debug"),
        (
            "cursor=nonsense",
            "cursor: invalid value 'nonsense'; use a cursor of this API",
        ),
    ] {
        let (status, body) = stack
            .get_all_unterminated(&format!("/api/apps/shop/logs?{query}"))
            .await;
        assert_eq!(status, 422, "{query}");
        let errors: serde_json::Value = serde_json::from_str(&body).unwrap();
        let message = errors["errors"][""][0].as_str().unwrap();
        assert!(message.starts_with(reason), "{query}: {body}");
        assert!(body.is_ascii() && !body.contains('\n'), "{query}: {body}");
    }
    let id = [("accept", "text/event-stream"), ("last-event-id", "nonsense")];
    assert_eq!(stack.get_with("/api/apps/shop/logs", &id).await.response.status(), 422);
    stack.stop().await;
}
