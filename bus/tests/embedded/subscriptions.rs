//! Durable subscriptions of the embedded bus.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_redelivers_unacknowledged_batches_also_after_a_restart() {
    let dir = TempDir::new().unwrap();
    let web = of_app("shop");
    {
        let bus = open(dir.path());
        bus.publish(lines(&web, 0, 1)).await.unwrap();
        let mut reader = bus.subscribe(&shop(), "drain-1").await.unwrap();
        assert!(matches!(
            bus.subscribe(&shop(), "drain-1").await,
            Err(BusError::SubscriptionInUse(_))
        ));
        for seq in 1..6 {
            bus.publish(lines(&web, seq, seq + 1)).await.unwrap();
        }
        let mut deliveries = Vec::new();
        for seq in 1..6 {
            let ReaderItem::Delivery(delivery) = next(&mut reader).await else {
                panic!("a batch")
            };
            assert_eq!(delivery.batch.seq, seq, "a new subscription starts with new batches");
            deliveries.push(delivery);
        }
        deliveries.remove(3).ack.unwrap().nack();
        assert_eq!(next_batch(&mut reader).await.seq, 4, "a nacked batch is redelivered");
        deliveries.remove(0).ack.unwrap().ack();
        deliveries.remove(0).ack.unwrap().ack();
        drop(deliveries);
        // Commands are processed in order, so the acks are processed before this one.
        bus.create(&"other".parse().unwrap()).await.unwrap();
    }
    let bus = open(dir.path());
    let mut reader = bus.subscribe(&shop(), "drain-1").await.unwrap();
    assert_eq!(
        next_batch(&mut reader).await.seq,
        3,
        "only unacknowledged batches are redelivered"
    );
    drop(reader);
    bus.unsubscribe(&shop(), "drain-1").await.unwrap();
    bus.publish(lines(&web, 6, 7)).await.unwrap();
    let mut reader = bus.subscribe(&shop(), "drain-1").await.unwrap();
    bus.publish(lines(&web, 7, 8)).await.unwrap();
    assert_eq!(
        next_batch(&mut reader).await.seq,
        7,
        "a recreated subscription starts with new batches"
    );
}

/// Publishes batches 0 to 5, acknowledges the first two, and changes the offset file.
async fn next_after_damage(damage: impl FnOnce(&mut Vec<u8>)) -> u64 {
    let dir = TempDir::new().unwrap();
    let web = of_app("shop");
    {
        let bus = open(dir.path());
        bus.create(&shop()).await.unwrap();
        let mut reader = bus.subscribe(&shop(), "d").await.unwrap();
        for seq in 0..5 {
            bus.publish(lines(&web, seq, seq + 1)).await.unwrap();
        }
        for _ in 0..2 {
            let ReaderItem::Delivery(delivery) = next(&mut reader).await else {
                panic!("a batch")
            };
            delivery.ack.unwrap().ack();
        }
    }
    let path = dir.path().join("apps/shop/64.sub");
    let mut stored = std::fs::read(&path).unwrap();
    damage(&mut stored);
    std::fs::write(&path, stored).unwrap();
    let bus = open(dir.path());
    let mut reader = bus.subscribe(&shop(), "d").await.unwrap();
    next_batch(&mut reader).await.seq
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_offset_skips_no_batch() {
    assert_eq!(next_after_damage(|_| ()).await, 2);
    assert_eq!(next_after_damage(Vec::clear).await, 0, "nothing is known");
    // One of the two slots is whole: the last offset, or the one before.
    for at in [1, 22, 31, 52] {
        let next = next_after_damage(|stored| stored[at] ^= 8).await;
        assert!((1..=2).contains(&next), "byte {at}: {next}");
    }
    let of_an_earlier_version = |stored: &mut Vec<u8>| stored.truncate(20);
    assert!(next_after_damage(of_an_earlier_version).await <= 2);
    let beyond_the_topic = |stored: &mut Vec<u8>| *stored = b"99999999999999999999"[..20].to_vec();
    assert_eq!(next_after_damage(beyond_the_topic).await, 0, "not a number of 64 bits");
}
