//! Every line once and in order; every gap reported once.

use bus::Start;

use crate::{
    engine::Engine,
    reading::*,
    support::{end, lines, recorded_gap, unknown_gap},
};

pub async fn lines_arrive_once_and_in_order_despite_reordering_and_repeats(engine: Engine) {
    let bus = &*engine.bus;
    bus.create(&app("shop")).await.unwrap();
    let mut reader = Assembled::new(follow(bus, Start::Now).await, 1);
    let streams = [fresh("a"), fresh("b"), fresh("c")];
    for round in 0..60u64 {
        for (which, web) in streams.iter().enumerate() {
            let from = round * 10;
            // A recut retry: the bus has accepted some of its lines before.
            let again = if (round + which as u64).is_multiple_of(4) { 7 } else { 0 };
            publish_all(bus, [lines(web, from.saturating_sub(again), from + 10)]).await;
        }
    }
    publish_all(bus, streams.iter().map(|web| end(web, 600))).await;
    let events = reader.until_ended(3).await;
    for process in ["a", "b", "c"] {
        assert_eq!(joined(&events[process]), 600);
    }
}

pub async fn gaps_and_ends_are_reported_once_at_their_position(engine: Engine) {
    let bus = &*engine.bus;
    bus.create(&app("shop")).await.unwrap();
    let mut reader = Assembled::with_window(REORDER_WINDOW, follow(bus, Start::Now).await, 2);
    let web = fresh("web");
    publish_all(
        bus,
        [
            lines(&web, 0, 10),
            recorded_gap(&web, 10, 20),
            lines(&web, 20, 25),
            recorded_gap(&web, 10, 20),
            // Lines 25 to 29 never arrive, without a record.
            lines(&web, 30, 35),
            unknown_gap(&web, 35),
            lines(&web, 35, 36),
            end(&web, 40),
        ],
    )
    .await;
    let events = reader.until_ended(1).await;
    let whole = merged(&events["web"]);
    assert_eq!(
        whole,
        [
            "L0-10",
            "recorded10-20",
            "L20-25",
            "gap25-30",
            "L30-35",
            "recorded35-?",
            "L35-36",
            "gap36-40",
            "end40"
        ]
    );
}

pub async fn lines_that_arrive_after_their_gap_was_reported_are_late(engine: Engine) {
    let bus = &*engine.bus;
    bus.create(&app("shop")).await.unwrap();
    let mut reader = Assembled::with_window(REORDER_WINDOW, follow(bus, Start::Now).await, 3);
    let web = fresh("web");
    publish_all(bus, [lines(&web, 0, 10), lines(&web, 20, 30)]).await;
    let mut events = Vec::new();
    while !events.iter().any(|event: &String| event.contains("gap")) {
        events.push(crate::support::describe(&reader.next().await));
    }
    publish_all(bus, [lines(&web, 10, 20), end(&web, 30)]).await;
    let mut late = std::collections::BTreeSet::new();
    while late.len() < 10 || !events.last().is_some_and(|event: &String| event.contains("end")) {
        let event = reader.next().await;
        if let bus::reassembly::EventKind::Lines { lines, late: true, .. } = event.kind {
            for seq in event.seq..event.seq + lines {
                assert!(late.insert(seq), "line {seq} arrives once");
            }
        } else {
            events.push(crate::support::describe(&event));
        }
    }
    assert!(late.into_iter().eq(10..20), "all lines of the gap");
    assert_eq!(merged(&events), ["L0-10", "gap10-20", "L20-30", "end30"]);
}

/// Merges adjacent ranges of one kind, because batches may be cut anywhere.
fn merged(events: &[String]) -> Vec<String> {
    let mut whole: Vec<(String, String, String)> = Vec::new();
    for event in events {
        let event = event.split_once(':').unwrap().1;
        let at = event.find(|c: char| c.is_ascii_digit()).unwrap();
        let (kind, range) = event.split_at(at);
        let (from, to) = range.split_once('-').unwrap_or((range, ""));
        match whole.last_mut() {
            Some((last, _, end)) if last == kind && end == from && kind != "end" => *end = to.to_owned(),
            _ => whole.push((kind.to_owned(), from.to_owned(), to.to_owned())),
        }
    }
    let print = |(kind, from, to): (String, String, String)| {
        if to.is_empty() {
            format!("{kind}{from}")
        } else {
            format!("{kind}{from}-{to}")
        }
    };
    whole.into_iter().map(print).collect()
}
