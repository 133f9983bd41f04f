//! A durable subscription keeps what its reader did not accept.

use std::collections::BTreeSet;

use bus::{BusError, Delivery, Reader};

use crate::{engine::Engine, reading::*, support::lines};

async fn subscribe(engine: &Engine) -> Reader {
    let opened = async {
        loop {
            match engine.bus.subscribe(&app("shop"), "drain/1").await {
                // A reader that was just dropped may not be gone yet.
                Err(BusError::Subscribed(_)) => tokio::task::yield_now().await,
                opened => return opened.unwrap(),
            }
        }
    };
    bounded("the subscription", opened).await
}

/// The next `count` batches that were not seen before, by seq.
async fn take(reader: &mut Reader, count: usize) -> Vec<Delivery> {
    let mut seen = BTreeSet::new();
    let mut all = Vec::new();
    while all.len() < count {
        let delivery = next_delivery(reader).await;
        if seen.insert(delivery.batch.seq) {
            all.push(delivery);
        }
    }
    all.sort_by_key(|delivery| delivery.batch.seq);
    all
}

fn accept(delivery: Delivery) {
    delivery.ack.expect("an ack").accept();
}

pub async fn a_subscription_begins_with_what_comes_after_it_and_keeps_what_is_not_accepted(engine: Engine) {
    let web = fresh("web");
    publish_all(&*engine.bus, [lines(&web, 0, 1)]).await;
    let mut reader = subscribe(&engine).await;
    publish_all(&*engine.bus, (1..6).map(|n| lines(&web, n, n + 1))).await;
    let all = take(&mut reader, 5).await;
    assert_eq!(all[0].batch.seq, 1, "nothing from before it");
    let mut kept = BTreeSet::new();
    for delivery in all {
        if delivery.batch.seq % 2 == 0 {
            accept(delivery);
        } else {
            kept.insert(delivery.batch.seq);
        }
    }
    drop(reader);
    // While nobody reads, it keeps on.
    publish_all(&*engine.bus, [lines(&web, 6, 7)]).await;
    kept.insert(6);
    let mut reader = subscribe(&engine).await;
    while !kept.is_empty() {
        let delivery = next_delivery(&mut reader).await;
        kept.remove(&delivery.batch.seq);
        accept(delivery);
    }
}

pub async fn what_is_given_back_comes_again(engine: Engine) {
    engine.bus.create(&app("shop")).await.unwrap();
    let mut reader = subscribe(&engine).await;
    publish_all(&*engine.bus, [lines(&fresh("web"), 0, 1)]).await;
    for _ in 0..2 {
        let delivery = next_delivery(&mut reader).await;
        assert_eq!(delivery.batch.seq, 0);
        delivery.ack.expect("an ack").give_back();
    }
    accept(next_delivery(&mut reader).await);
}

pub async fn a_subscription_has_one_reader_at_a_time(engine: Engine) {
    engine.bus.create(&app("shop")).await.unwrap();
    let reader = subscribe(&engine).await;
    let second = engine.bus.subscribe(&app("shop"), "drain/1").await;
    assert!(matches!(second, Err(BusError::Subscribed(_))));
    drop(reader);
    subscribe(&engine).await;
}

pub async fn a_subscription_that_was_removed_and_made_again_is_new(engine: Engine) {
    let web = fresh("web");
    engine.bus.create(&app("shop")).await.unwrap();
    drop(subscribe(&engine).await);
    publish_all(&*engine.bus, [lines(&web, 0, 1)]).await;
    engine.bus.unsubscribe(&app("shop"), "drain/1").await.unwrap();
    engine.bus.unsubscribe(&app("shop"), "drain/1").await.unwrap();
    let mut reader = subscribe(&engine).await;
    publish_all(&*engine.bus, [lines(&web, 1, 2)]).await;
    assert_eq!(next_delivery(&mut reader).await.batch.seq, 1);
}
