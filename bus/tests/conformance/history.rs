//! Stored batches are delivered, and their end is known.

use bus::{ReaderItem, Start};

use crate::{engine::Engine, reading::*, support::lines};

pub async fn a_reader_gets_the_history_then_caught_up_then_live_batches(engine: Engine) {
    let bus = &*engine.bus;
    let web = fresh("web");
    publish_all(bus, (0..50).map(|n| lines(&web, n, n + 1))).await;
    let mut reader = follow(bus, Start::Oldest).await;
    publish_all(bus, [lines(&web, 50, 51)]).await;
    let kept = history(&mut reader).await;
    assert!(kept.iter().copied().take(50).eq(0..50), "{kept:?}");
    if kept.len() == 50 {
        assert_eq!(next_delivery(&mut reader).await.batch.seq, 50, "live batches follow");
    }
    publish_all(bus, [lines(&web, 51, 52)]).await;
    assert_eq!(next_delivery(&mut reader).await.batch.seq, 51);
}

pub async fn a_reader_can_start_at_a_time(engine: Engine) {
    let bus = &*engine.bus;
    let web = fresh("web");
    publish_all(bus, (0..20).map(|n| lines(&web, n, n + 1))).await;
    let mut all = follow(bus, Start::Oldest).await;
    let mut delivered = Vec::new();
    loop {
        match next(&mut all).await {
            ReaderItem::Delivery(delivery) => delivered.push((delivery.published, delivery.batch.seq)),
            ReaderItem::CaughtUp => break,
            other => panic!("{other:?}"),
        }
    }
    delivered.sort();
    let (middle, _) = delivered[10];
    let mut later = follow(bus, Start::At(middle)).await;
    assert!(later.since() <= middle);
    let seqs = history(&mut later).await;
    let mut expected: Vec<u64> = delivered
        .iter()
        .filter(|(time, _)| *time >= middle)
        .map(|(_, seq)| *seq)
        .collect();
    expected.sort_unstable();
    assert_eq!(seqs, expected);
}

pub async fn a_reader_that_starts_now_gets_no_older_batches(engine: Engine) {
    let bus = &*engine.bus;
    let web = fresh("web");
    publish_all(bus, (0..20).map(|n| lines(&web, n, n + 1))).await;
    let mut reader = follow(bus, Start::Now).await;
    publish_all(bus, [lines(&web, 20, 21)]).await;
    assert!(matches!(next(&mut reader).await, ReaderItem::CaughtUp));
    assert_eq!(next_delivery(&mut reader).await.batch.seq, 20);
}

pub async fn the_history_of_an_app_without_lines_ends_at_once(engine: Engine) {
    let bus = &*engine.bus;
    bus.create(&app("shop")).await.unwrap();
    bus.create(&app("shop")).await.unwrap();
    let mut reader = follow(bus, Start::Oldest).await;
    assert_eq!(history(&mut reader).await, Vec::<u64>::new());
    publish_all(bus, [lines(&fresh("web"), 0, 1)]).await;
    assert_eq!(next_delivery(&mut reader).await.batch.seq, 0);
}

pub async fn accepted_batches_survive_a_restart(engine: Engine) {
    let web = fresh("web");
    publish_all(&*engine.bus, (0..30).map(|n| lines(&web, n, n + 1))).await;
    let engine = engine.restart().await;
    let mut reader = follow(&*engine.bus, Start::Oldest).await;
    assert_eq!(history(&mut reader).await, (0..30).collect::<Vec<_>>());
}
