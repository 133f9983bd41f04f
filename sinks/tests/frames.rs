//! HTTPS drains: frames that Logplex's receivers take, counts that add up, whatever is answered.

#![allow(clippy::unwrap_used, reason = "a helper's panic fails its test")]

mod support;

use std::{collections::HashMap, time::Duration};

use bus::{Bus, ReaderItem, Start};
use registry::{DrainState, Registry};
use sinks::Config;
use support::{
    web::{Answer, Web},
    *,
};

/// Numbered lines, each once and in order.
fn numbered(texts: &[String]) -> u64 {
    let seqs = texts
        .iter()
        .filter_map(|text| text.strip_prefix("line "))
        .map(|seq| seq.parse::<u64>().unwrap());
    seqs.enumerate().map(|(at, seq)| assert_eq!(at as u64, seq)).count() as u64
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_has_all_that_a_receiver_wants_to_know_of_it() {
    let (house, mut web) = (House::open().await, Web::start([], Answer::of(204)).await);
    let drain = house.drain(&web.url()).await;
    let zipped = Web::start([], Answer::of(200)).await;
    house
        .drain(&format!("http://{}/?tributary.gzip=on&key=K", zipped.addr))
        .await;
    let sinks = house.start(config());
    house.print(&metadata("web-1"), 0, 5000, 500).await;
    web.until_messages(5000).await;
    assert_eq!(numbered(&web.texts()), 5000);
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
    assert_eq!(numbered(&zipped.texts()), 5000);
    assert_eq!(
        zipped.frames.lock()[0].path,
        "/?key=K",
        "options are ours, and not sent"
    );
    house
        .until_report(&drain, "all counted", |report| {
            report.delivered == 5000 && report.lag_lines == 0
        })
        .await;
    sinks.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_taken_is_sent_again_under_its_own_id_until_it_is() {
    let late = Answer {
        after: Duration::from_secs(2),
        ..Answer::of(200)
    };
    let busy = Answer {
        headers: vec![("retry-after", "1".to_owned())],
        ..Answer::of(429)
    };
    let first = [Answer::of(500), busy, Answer::of(408), Answer::of(503), late];
    let (house, mut web) = (House::open().await, Web::start(first, Answer::of(200)).await);
    let drain = house.drain(&web.url()).await;
    let sinks = house.start(Config {
        answer_wait: Duration::from_secs(1),
        ..config()
    });
    house.print(&metadata("web-1"), 0, 3000, 100).await;
    house
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
        "who goes by ids has each line once"
    );
    let report = house
        .until_report(&drain, "repeats counted", |report| report.resent > 0)
        .await;
    assert_eq!(report.dropped, 0);
    sinks.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_finds_frames_too_large_gets_smaller_ones() {
    let (house, mut web) = (
        House::open().await,
        Web::start([Answer::of(413), Answer::of(413)], Answer::of(200)).await,
    );
    let drain = house.drain(&web.url()).await;
    let sinks = house.start(config());
    house.print(&metadata("web-1"), 0, 4000, 1000).await;
    web.until_messages(4000).await;
    assert_eq!(numbered(&web.texts()), 4000);
    let sizes: Vec<usize> = web.frames.lock().iter().map(|frame| frame.messages.len()).collect();
    assert!(sizes[1] < sizes[0] && sizes[2] < sizes[1], "{sizes:?}");
    house
        .until_report(&drain, "none dropped", |report| {
            report.delivered == 4000 && report.dropped == 0
        })
        .await;
    sinks.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_drains_that_refuse_for_ever_make_one_notice_each_and_no_loop() {
    let house = House::open().await;
    let (one, two) = (
        Web::start([], Answer::of(403)).await,
        Web::start([], Answer::of(302)).await,
    );
    let (first, second) = (house.drain(&one.url()).await, house.drain(&two.url()).await);
    let sinks = house.start(config());
    let web = metadata("web-1");
    house.print(&web, 0, 2000, 10).await;
    let dropped = |count| move |report: &registry::DrainReport| report.dropped == count;
    house.until_report(&first, "all dropped", dropped(2000)).await;
    house.until_report(&second, "all dropped", dropped(2000)).await;
    house.print(&web, 2000, 2100, 10).await;
    house.until_report(&first, "all dropped", dropped(2100)).await;
    house.until_report(&second, "all dropped", dropped(2100)).await;
    sinks.stop().await;
    let mut reader = house.bus.follow(&"shop".parse().unwrap(), Start::Oldest).await.unwrap();
    let mut notices = Vec::new();
    while let Some(Ok(item)) = bounded("the log", reader.next()).await {
        match item {
            ReaderItem::Delivery(delivery) if delivery.batch.metadata.origin == "tributary" => {
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
            text.contains("Error L13: ") && text.contains(&format!("it answers {status}")),
            "{text}"
        );
        assert!(!text.contains("hunter2") && !text.contains("key=K"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_is_away_is_tried_again_and_gets_all_of_it() {
    let (house, mut web) = (House::open().await, Web::start([], Answer::of(500)).await);
    let drain = house.drain(&web.url()).await;
    let sinks = house.start(config());
    house.print(&metadata("web-1"), 0, 1000, 10).await;
    let report = house
        .until_report(&drain, "failing", |report| report.state == DrainState::Failing)
        .await;
    assert_eq!(report.last_error.as_deref(), Some("it answers 500"));
    // Sinks that stop meanwhile begin again where they were.
    sinks.stop().await;
    web.answer_from_now_on(Answer::of(200));
    let sinks = house.start(config());
    web.until_messages(1000).await;
    assert_eq!(numbered(&web.texts()), 1000);
    house
        .until_report(&drain, "connected", |report| report.state == DrainState::Connected)
        .await;
    assert!(house.registry.report_of(drain.id).await.unwrap().unwrap().dropped == 0);
    sinks.stop().await;
}
