//! A durable subscription redelivers unacknowledged batches.

use std::collections::BTreeSet;

use bus::{BusError, Delivery, Reader};

use crate::{engine::Engine, reading::*, support::lines};

async fn subscribe(engine: &Engine) -> Reader {
    let opened = async {
        loop {
            match engine.bus.subscribe(&app("shop"), "drain/1").await {
                // The previous reader may not have ended yet.
                Err(BusError::SubscriptionInUse(_)) => tokio::task::yield_now().await,
                opened => return opened.unwrap(),
            }
        }
    };
    bounded("the subscription", opened).await
}

/// The next `count` distinct batches, sorted by sequence number.
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

fn acknowledge(delivery: Delivery) {
    delivery.ack.expect("an ack").ack();
}

pub async fn a_new_subscription_starts_with_new_batches_and_redelivers_unacknowledged_ones(engine: Engine) {
    let web = fresh("web");
    publish_all(&*engine.bus, [lines(&web, 0, 1)]).await;
    let mut reader = subscribe(&engine).await;
    publish_all(&*engine.bus, (1..6).map(|n| lines(&web, n, n + 1))).await;
    let all = take(&mut reader, 5).await;
    assert_eq!(all[0].batch.seq, 1, "no older batches");
    let mut unacked = BTreeSet::new();
    for delivery in all {
        if delivery.batch.seq % 2 == 0 {
            acknowledge(delivery);
        } else {
            unacked.insert(delivery.batch.seq);
        }
    }
    drop(reader);
    // Without a reader, the subscription keeps receiving.
    publish_all(&*engine.bus, [lines(&web, 6, 7)]).await;
    unacked.insert(6);
    let mut reader = subscribe(&engine).await;
    while !unacked.is_empty() {
        let delivery = next_delivery(&mut reader).await;
        unacked.remove(&delivery.batch.seq);
        acknowledge(delivery);
    }
}

pub async fn a_nacked_batch_is_redelivered(engine: Engine) {
    engine.bus.create(&app("shop")).await.unwrap();
    let mut reader = subscribe(&engine).await;
    publish_all(&*engine.bus, [lines(&fresh("web"), 0, 1)]).await;
    for _ in 0..2 {
        let delivery = next_delivery(&mut reader).await;
        assert_eq!(delivery.batch.seq, 0);
        delivery.ack.expect("an ack").nack();
    }
    acknowledge(next_delivery(&mut reader).await);
}

pub async fn a_subscription_has_one_reader_at_a_time(engine: Engine) {
    engine.bus.create(&app("shop")).await.unwrap();
    let reader = subscribe(&engine).await;
    let second = engine.bus.subscribe(&app("shop"), "drain/1").await;
    assert!(matches!(second, Err(BusError::SubscriptionInUse(_))));
    drop(reader);
    subscribe(&engine).await;
}

pub async fn a_deleted_and_recreated_subscription_starts_with_new_batches(engine: Engine) {
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
