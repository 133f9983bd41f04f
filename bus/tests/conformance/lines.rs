//! Every line once, in order; every loss told once.

use bus::Start;

use crate::{
    engine::Engine,
    reading::*,
    support::{end, lines, loss, unknown_loss},
};

pub async fn each_line_comes_once_and_in_order_whatever_the_way_did(engine: Engine) {
    let bus = &*engine.bus;
    bus.create(&app("shop")).await.unwrap();
    let mut reader = Assembled::new(follow(bus, Start::Now).await, 1);
    let streams = [fresh("a"), fresh("b"), fresh("c")];
    for round in 0..60u64 {
        for (which, web) in streams.iter().enumerate() {
            let from = round * 10;
            // A retry that was cut anew: some of it the bus has already.
            let again = if (round + which as u64).is_multiple_of(4) { 7 } else { 0 };
            publish_all(bus, [lines(web, from.saturating_sub(again), from + 10)]).await;
        }
    }
    publish_all(bus, streams.iter().map(|web| end(web, 600))).await;
    let told = reader.until_ended(3).await;
    for process in ["a", "b", "c"] {
        assert_eq!(joined(&told[process]), 600);
    }
}

pub async fn gaps_losses_and_ends_are_told_once_in_their_place(engine: Engine) {
    let bus = &*engine.bus;
    bus.create(&app("shop")).await.unwrap();
    let mut reader = Assembled::holding(HOLD, follow(bus, Start::Now).await, 2);
    let web = fresh("web");
    publish_all(
        bus,
        [
            lines(&web, 0, 10),
            loss(&web, 10, 20),
            lines(&web, 20, 25),
            loss(&web, 10, 20),
            // 25 to 29 never come, and nobody says so.
            lines(&web, 30, 35),
            unknown_loss(&web, 35),
            lines(&web, 35, 36),
            end(&web, 40),
        ],
    )
    .await;
    let told = reader.until_ended(1).await;
    let whole = merged(&told["web"]);
    assert_eq!(
        whole,
        [
            "L0-10",
            "lost10-20",
            "L20-25",
            "gap25-30",
            "L30-35",
            "lost35-?",
            "L35-36",
            "gap36-40",
            "end40"
        ]
    );
}

pub async fn what_comes_after_its_gap_was_told_is_late(engine: Engine) {
    let bus = &*engine.bus;
    bus.create(&app("shop")).await.unwrap();
    let mut reader = Assembled::holding(HOLD, follow(bus, Start::Now).await, 3);
    let web = fresh("web");
    publish_all(bus, [lines(&web, 0, 10), lines(&web, 20, 30)]).await;
    let mut told = Vec::new();
    while !told.iter().any(|what: &String| what.contains("gap")) {
        told.push(crate::support::describe(&reader.next().await));
    }
    publish_all(bus, [lines(&web, 10, 20), end(&web, 30)]).await;
    let mut late = std::collections::BTreeSet::new();
    while late.len() < 10 || !told.last().is_some_and(|what: &String| what.contains("end")) {
        let event = reader.next().await;
        if let bus::reassembly::What::Lines { lines, late: true, .. } = event.what {
            for seq in event.seq..event.seq + lines {
                assert!(late.insert(seq), "{seq} twice");
            }
        } else {
            told.push(crate::support::describe(&event));
        }
    }
    assert!(late.into_iter().eq(10..20), "each line whose gap was told");
    assert_eq!(merged(&told), ["L0-10", "gap10-20", "L20-30", "end30"]);
}

/// Neighbouring ranges of one kind as one: where batches were cut is not promised.
fn merged(told: &[String]) -> Vec<String> {
    let mut whole: Vec<(String, String, String)> = Vec::new();
    for what in told {
        let what = what.split_once(':').unwrap().1;
        let at = what.find(|c: char| c.is_ascii_digit()).unwrap();
        let (kind, range) = what.split_at(at);
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
