//! A drain that stays away for longer than the bus keeps lines is told first, when it is back, how many are gone.

#![allow(clippy::unwrap_used, reason = "a helper's panic fails its test")]

mod support;

use std::time::{Duration, SystemTime};

use bus::EmbeddedSettings;
use registry::Registry;
use support::{
    receiver::{Mode, Receiver},
    *,
};

#[tokio::test(flavor = "multi_thread")]
async fn what_the_bus_no_longer_has_is_counted_in_the_first_line() {
    let limits = EmbeddedSettings {
        retention_bytes: 16 << 20,
        ..EmbeddedSettings::default()
    };
    let (house, mut receiver) = (House::open_with(limits).await, Receiver::start().await);
    let drain = house.drain(&format!("syslog+tcp://{}", receiver.addr)).await;
    let sinks = house.start(config());
    let (web, padding) = (metadata("web-1"), "x".repeat(10_000));
    let print = async |from: u64, to: u64| {
        for seq in (from..to).step_by(50) {
            let lines: Vec<String> = (seq..seq + 50).map(|n| format!("line {n} {padding}")).collect();
            bus::Bus::publish(&*house.bus, batch(&web, seq, &lines)).await.unwrap();
        }
    };
    print(0, 50).await;
    receiver.until(50).await;
    receiver.die().await;
    // Three times what the bus keeps.
    print(50, 5050).await;
    receiver.set(Mode::Read);
    receiver.until_text("line 5049 ").await;
    let taken = receiver.taken();
    // Each line is there in its place, or counted there.
    let (mut next, mut dropped) = (0, 0);
    for message in &taken {
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
                message.text.contains(" messages dropped since 2") && message.text.contains(", up to 2"),
                "{}",
                message.text
            );
            next += word(5);
            dropped += word(5);
        } else if word(1) >= 50 || next < 50 {
            assert_eq!(word(1), next);
            next += 1;
        }
        // The first fifty were not sure when their receiver died, and come again.
    }
    assert_eq!(next, 5050, "all that is kept, in order");
    assert!(dropped > 0, "more was printed than is kept");
    house
        .until_report(&drain, "counted", |report| report.dropped == dropped)
        .await;
    sinks.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_whose_reader_was_away_for_longer_than_the_retention_is_told_the_span() {
    let (house, mut receiver) = (House::open().await, Receiver::start().await);
    let drain = house.drain(&format!("syslog+tcp://{}", receiver.addr)).await;
    let day = Duration::from_secs(24 * 3600);
    house
        .registry
        .delivered(vec![(drain.id, SystemTime::now() - day * 3)])
        .await
        .unwrap();
    let sinks = house.start(config());
    house.print(&metadata("web-1"), 0, 10, 10).await;
    receiver.until(11).await;
    let first = receiver.taken()[0].text.clone();
    assert!(
        first.contains("Error L10") && first.contains("an unknown number of messages dropped since"),
        "{first}"
    );
    sinks.stop().await;
    // Told once: what it has by now is known.
    let noted = house.registry.last_delivered(drain.id).await.unwrap();
    assert!(noted.is_some());
}
