//! A drain that stays away for longer than the bus keeps lines is told first, when it is back, how many are gone.

#![allow(clippy::unwrap_used, reason = "a helper's panic fails its test")]

mod support;

use std::time::{Duration, SystemTime};

use bus::Limits;
use registry::Registry;
use support::{
    receiver::{Mode, Receiver},
    *,
};

#[tokio::test(flavor = "multi_thread")]
async fn what_the_bus_no_longer_has_is_counted_in_the_first_line() {
    let limits = Limits {
        retention_bytes: 16 << 20,
        ..Limits::default()
    };
    let (house, mut receiver) = (House::open_with(limits).await, Receiver::start().await);
    let drain = house.drain(&format!("syslog+tcp://{}", receiver.addr)).await;
    let sinks = house.start(config());
    let (web, padding) = (origin("web-1"), "x".repeat(10_000));
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
    let at = taken
        .iter()
        .position(|message| message.text.contains("Error L10"))
        .expect("told");
    let told = &taken[at];
    assert_eq!((told.pri, &*told.app_name), (172, "tributary"));
    let count: u64 = told.text.split(' ').nth(5).unwrap().parse().expect(&told.text);
    let seq = |message: &receiver::Message| message.text.split(' ').nth(1).unwrap().parse::<u64>().unwrap();
    let (before, after) = (seq(&taken[at - 1]), seq(&taken[at + 1]));
    assert_eq!(before + 1 + count, after, "{}", told.text);
    assert!(
        told.text.contains(" messages dropped since 2") && told.text.contains(", up to 2"),
        "{}",
        told.text
    );
    let behind = taken[at + 1..].iter().map(seq);
    assert!(behind.eq(after..5050), "all that is kept, in order");
    house
        .until_report(&drain, "counted", |report| report.dropped == count)
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
    house.print(&origin("web-1"), 0, 10, 10).await;
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
