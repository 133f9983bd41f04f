//! A drain that was interrupted for longer than the retention gets a notice (L10) at the gap.

#![allow(clippy::unwrap_used, reason = "a helper's panic fails its test")]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests use the operating system directly"
)]

mod support;

use std::time::{Duration, SystemTime};

use bus::EmbeddedSettings;
use registry::Registry;
use support::{
    receiver::{Mode, Receiver},
    *,
};

#[tokio::test(flavor = "multi_thread")]
async fn the_first_line_counts_the_lines_beyond_retention() {
    let limits = EmbeddedSettings {
        retention_bytes: 16 << 20,
        ..EmbeddedSettings::default()
    };
    let (setup, mut receiver) = (Setup::open_with(limits).await, Receiver::start().await);
    let drain = setup.drain(&format!("syslog+tcp://{}", receiver.addr)).await;
    let sinks = setup.start(config());
    let (web, padding) = (metadata("web-1"), "x".repeat(10_000));
    let print = async |from: u64, to: u64| {
        for seq in (from..to).step_by(50) {
            let lines: Vec<String> = (seq..seq + 50).map(|n| format!("line {n} {padding}")).collect();
            bus::Bus::publish(&*setup.bus, batch(&web, seq, &lines)).await.unwrap();
        }
    };
    print(0, 50).await;
    receiver.until(50).await;
    receiver.take_down().await;
    // Three times the retained size.
    print(50, 5050).await;
    receiver.set(Mode::Read);
    receiver.until_text("line 5049 ").await;
    let messages = receiver.messages();
    // Each line arrives at its position or is counted there.
    let (mut next, mut dropped) = (0, 0);
    for message in &messages {
        let word = |n: usize| {
            message
                .text
                .split(' ')
                .nth(n)
                .and_then(|word| word.parse::<u64>().ok())
                .expect(&message.text)
        };
        if message.text.starts_with("Error L10 (output buffer overflow): ") {
            assert_eq!((message.pri, &*message.app_name), (172, "tributary"));
            assert!(
                message.text.contains(" lines dropped between 2") && message.text.contains(" and 2"),
                "{}",
                message.text
            );
            // Error L10 (output buffer overflow): at least N lines dropped
            next += word(7);
            dropped += word(7);
        } else if word(1) >= 50 || next < 50 {
            assert_eq!(word(1), next);
            next += 1;
        }
        // The first fifty were unconfirmed and are resent.
    }
    assert_eq!(next, 5050, "every line arrives or is counted, in order");
    assert!(dropped > 0, "more was printed than is retained");
    setup
        .until_report(&drain, "counted", |report| report.dropped == dropped)
        .await;
    sinks.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_that_was_not_run_for_longer_than_the_retention_gets_a_notice_with_the_span() {
    let (setup, mut receiver) = (Setup::open().await, Receiver::start().await);
    let drain = setup.drain(&format!("syslog+tcp://{}", receiver.addr)).await;
    let day = Duration::from_secs(24 * 3600);
    setup
        .registry
        .record_delivered(vec![(drain.id, SystemTime::now() - day * 3)])
        .await
        .unwrap();
    let sinks = setup.start(config());
    setup.print(&metadata("web-1"), 0, 10, 10).await;
    receiver.until(11).await;
    let first = receiver.messages()[0].text.clone();
    assert!(
        first.contains("Error L10") && first.contains("an unknown number of lines dropped between"),
        "{first}"
    );
    sinks.stop().await;
    // Reported once: the new delivery time is stored.
    let recorded = setup.registry.last_delivered(drain.id).await.unwrap();
    assert!(recorded.is_some());
}
