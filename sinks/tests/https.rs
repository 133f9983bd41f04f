//! HTTP drains: the content of frames, and the handling of every kind of response.

#![allow(clippy::unwrap_used, reason = "a helper's panic fails its test")]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests use the operating system directly"
)]

mod support;

use std::{collections::HashMap, time::Duration};

use bus::{Bus, Content, ReaderItem, Start};
use registry::{DrainState, Registry};
use sinks::Config;
use support::{
    logplex::{LogplexReceiver, ScriptedResponse},
    *,
};

/// Checks that numbered lines arrived once and in order, and returns their number.
fn count_numbered(texts: &[String]) -> u64 {
    let seqs = texts
        .iter()
        .filter_map(|text| text.strip_prefix("line "))
        .map(|seq| seq.parse::<u64>().unwrap());
    seqs.enumerate().map(|(at, seq)| assert_eq!(at as u64, seq)).count() as u64
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_have_the_headers_and_messages_of_logplex() {
    let (setup, mut web) = (
        Setup::open().await,
        LogplexReceiver::start([], ScriptedResponse::status(204)).await,
    );
    let drain = setup.drain(&web.url()).await;
    let zipped = LogplexReceiver::start([], ScriptedResponse::status(200)).await;
    setup
        .drain(&format!("http://{}/?tributary.gzip=on&key=K", zipped.addr))
        .await;
    let sinks = setup.start(config());
    setup.print(&metadata("web-1"), 0, 5000, 500).await;
    web.until_messages(5000).await;
    assert_eq!(count_numbered(&web.texts()), 5000);
    let frame = web.frames.lock()[0].clone();
    assert_eq!(frame.path, "/drain?key=K");
    assert_eq!(frame.headers["host"], web.addr.to_string());
    assert_eq!(frame.headers["authorization"], "Basic dXNlcjpodW50ZXIy");
    assert_eq!(frame.headers["logplex-drain-token"], drain.token);
    assert!(frame.headers["logplex-frame-id"].len() == 32);
    assert!(frame.headers["user-agent"].to_str().unwrap().starts_with("Tributary/"));
    assert!(frame.messages[0].starts_with("<14>1 2"), "{}", frame.messages[0]);
    assert!(
        frame.messages[0].ends_with("Z host app web-1 - line 0"),
        "{}",
        frame.messages[0]
    );
    let mut zipped = zipped;
    zipped.until_messages(5000).await;
    assert_eq!(count_numbered(&zipped.texts()), 5000);
    assert_eq!(zipped.frames.lock()[0].path, "/?key=K", "options are not sent");
    setup
        .until_report(&drain, "all lines counted", |report| {
            report.delivered == 5000 && report.lag_lines == 0
        })
        .await;
    sinks.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unaccepted_frames_are_resent_with_the_same_id() {
    let late = ScriptedResponse {
        delay: Duration::from_secs(2),
        ..ScriptedResponse::status(200)
    };
    let busy = ScriptedResponse {
        headers: vec![("retry-after", "1".to_owned())],
        ..ScriptedResponse::status(429)
    };
    let first = [
        ScriptedResponse::status(500),
        busy,
        ScriptedResponse::status(408),
        ScriptedResponse::status(503),
        late,
    ];
    let (setup, mut web) = (
        Setup::open().await,
        LogplexReceiver::start(first, ScriptedResponse::status(200)).await,
    );
    let drain = setup.drain(&web.url()).await;
    let sinks = setup.start(Config {
        response_timeout: Duration::from_secs(1),
        ..config()
    });
    setup.print(&metadata("web-1"), 0, 3000, 100).await;
    setup
        .until_report(&drain, "all delivered", |report| report.delivered == 3000)
        .await;
    web.until_frames(6).await;
    let frames = web.frames.lock().clone();
    let ids: Vec<&str> = frames
        .iter()
        .map(|frame| frame.headers["logplex-frame-id"].to_str().unwrap())
        .collect();
    assert!(ids[..5].iter().all(|id| *id == ids[0]), "{ids:?}");
    let mut once = HashMap::new();
    for frame in &frames {
        once.insert(frame.headers["logplex-frame-id"].clone(), &frame.messages);
    }
    assert_eq!(
        once.values().map(|messages| messages.len()).sum::<usize>(),
        3000,
        "deduplicated by frame id, each line arrives once"
    );
    let report = setup
        .until_report(&drain, "repeats counted", |report| report.resent > 0)
        .await;
    assert_eq!(report.dropped, 0);
    sinks.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_shrink_after_413_responses() {
    let (setup, mut web) = (
        Setup::open().await,
        LogplexReceiver::start(
            [ScriptedResponse::status(413), ScriptedResponse::status(413)],
            ScriptedResponse::status(200),
        )
        .await,
    );
    let drain = setup.drain(&web.url()).await;
    let sinks = setup.start(config());
    setup.print(&metadata("web-1"), 0, 4000, 1000).await;
    web.until_messages(4000).await;
    assert_eq!(count_numbered(&web.texts()), 4000);
    let sizes: Vec<usize> = web.frames.lock().iter().map(|frame| frame.messages.len()).collect();
    assert!(sizes[1] < sizes[0] && sizes[2] < sizes[1], "{sizes:?}");
    setup
        .until_report(&drain, "none dropped", |report| {
            report.delivered == 4000 && report.dropped == 0
        })
        .await;
    sinks.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_rejecting_drains_cause_one_notice_each_and_no_loop() {
    let setup = Setup::open().await;
    let (one, two) = (
        LogplexReceiver::start([], ScriptedResponse::status(403)).await,
        LogplexReceiver::start([], ScriptedResponse::status(302)).await,
    );
    let (first, second) = (setup.drain(&one.url()).await, setup.drain(&two.url()).await);
    let sinks = setup.start(config());
    let web = metadata("web-1");
    setup.print(&web, 0, 2000, 10).await;
    let dropped = |count| move |report: &registry::DrainReport| report.dropped == count;
    setup.until_report(&first, "all dropped", dropped(2000)).await;
    setup.until_report(&second, "all dropped", dropped(2000)).await;
    setup
        .until_report(&first, "refusing", |report| {
            report.state == DrainState::Refusing
                && report.last_error.as_deref() == Some("the receiver responded with HTTP 403")
        })
        .await;
    setup.print(&web, 2000, 2100, 10).await;
    setup.until_report(&first, "all dropped", dropped(2100)).await;
    setup.until_report(&second, "all dropped", dropped(2100)).await;
    sinks.stop().await;
    let mut reader = setup.bus.follow(&"shop".parse().unwrap(), Start::Oldest).await.unwrap();
    let mut notices = Vec::new();
    while let Some(Ok(item)) = bounded("the log", reader.next()).await {
        match item {
            ReaderItem::Delivery(delivery) if delivery.batch.metadata.origin == "tributary" => {
                let Content::Message { message, .. } = &delivery.batch.content else {
                    panic!("{:?}", delivery.batch)
                };
                assert_eq!((&*message.code, &*message.reason), ("L13", "rejected"));
                notices.push((
                    delivery.batch.metadata.about.clone(),
                    String::from_utf8(delivery.batch.data().to_vec()).unwrap(),
                ));
            }
            ReaderItem::CaughtUp => break,
            _ => {}
        }
    }
    assert_eq!(notices.len(), 2, "{notices:?}");
    for (drain, status) in [(&first, "403"), (&second, "302")] {
        let (_, text) = notices
            .iter()
            .find(|(about, _)| *about == Some(drain.id.to_string()))
            .unwrap();
        assert!(
            text.contains("Error L13: ") && text.contains(&format!("HTTP {status}")),
            "{text}"
        );
        assert!(!text.contains("hunter2") && !text.contains("key=K"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unavailable_receiver_is_retried_and_receives_every_line() {
    let (setup, mut web) = (
        Setup::open().await,
        LogplexReceiver::start([], ScriptedResponse::status(500)).await,
    );
    let drain = setup.drain(&web.url()).await;
    let sinks = setup.start(config());
    setup.print(&metadata("web-1"), 0, 1000, 10).await;
    let report = setup
        .until_report(&drain, "failing", |report| report.state == DrainState::Failing)
        .await;
    assert_eq!(
        report.last_error.as_deref(),
        Some("the receiver responded with HTTP 500")
    );
    // After a restart, sinks resume with the unconfirmed lines.
    sinks.stop().await;
    web.set_response(ScriptedResponse::status(200));
    let sinks = setup.start(config());
    web.until_messages(1000).await;
    assert_eq!(count_numbered(&web.texts()), 1000);
    setup
        .until_report(&drain, "connected", |report| report.state == DrainState::Connected)
        .await;
    assert!(setup.registry.drain_report(drain.id).await.unwrap().unwrap().dropped == 0);
    sinks.stop().await;
}
