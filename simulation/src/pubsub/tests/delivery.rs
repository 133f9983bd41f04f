//! Delivery: at least once to each subscription, until it is acknowledged.

use super::*;

#[tokio::test(start_paused = true)]
async fn each_subscription_gets_what_is_published_after_its_creation_once() {
    let model = with_subscription(1, Faults::default()).await;
    publish_all(&model, 0..10).await;
    create(&model, "two", None).await.unwrap();
    publish_all(&model, 10..20).await;
    let one = Reader::new(&model, "one").drain(QUIET).await;
    let two = Reader::new(&model, "two").drain(QUIET).await;
    assert!(one.into_iter().eq((0..20).map(|number| (number, 1))));
    assert!(two.into_iter().eq((10..20).map(|number| (number, 1))));
    assert_eq!(model.backlog(&full("one")), Some(0));
}

#[tokio::test(start_paused = true)]
async fn an_unacknowledged_message_is_redelivered_when_its_stream_ends() {
    let model = with_subscription(2, Faults::default()).await;
    publish_all(&model, 0..1).await;
    let mut reader = Reader::new(&model, "one");
    let held = reader.next().await;
    let now = started();
    drop(reader);
    let again = Reader::new(&model, "one").next().await;
    assert_eq!(number(&again), 0);
    assert_about(now, Duration::ZERO);
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn without_nacks_it_is_redelivered_after_the_ack_deadline() {
    let faults = Faults {
        lost_nack: 1.0,
        ..Faults::default()
    };
    let model = with_subscription(3, faults).await;
    publish_all(&model, 0..1).await;
    let mut reader = Reader::new(&model, "one");
    let held = reader.next().await;
    let now = started();
    drop(reader);
    Reader::new(&model, "one").next().await;
    assert_about(now, ACK_DEADLINE);
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn a_killed_process_loses_its_last_acknowledgements() {
    let faults = Faults {
        lost_nack: 1.0,
        ..Faults::default()
    };
    let model = with_subscription(4, faults).await;
    publish_all(&model, 0..2).await;
    let mut reader = Reader::new(&model, "one");
    let (first, second) = (reader.next().await, reader.next().await);
    let last = number(&second);
    first.ack.ack();
    tokio::time::sleep(Duration::from_secs(1)).await;
    second.ack.ack();
    drop(reader);
    let again = Reader::new(&model, "one").drain(QUIET).await;
    assert!(again.into_keys().eq([last]));
}

#[tokio::test(start_paused = true)]
async fn a_nacked_message_is_redelivered_after_growing_delays() {
    let model = model(5);
    model.create_topic(TOPIC, DAY).await.unwrap();
    let delays = RetryDelays {
        min: Duration::from_secs(1),
        max: Duration::from_secs(5),
    };
    create(&model, "one", Some(delays)).await.unwrap();
    publish_all(&model, 0..1).await;
    let mut reader = Reader::new(&model, "one");
    let mut message = reader.next().await;
    for seconds in [1, 2, 4, 5, 5] {
        let now = started();
        message.ack.nack();
        message = reader.next().await;
        assert_about(now, Duration::from_secs(seconds));
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_pauses_at_its_limit_of_unacknowledged_messages() {
    let model = with_subscription(6, Faults::default()).await;
    publish_all(&model, 0..20).await;
    let mut stream = model.open_stream(&full("one"), options(5)).await.unwrap();
    let mut held = Vec::new();
    while let Ok(messages) = timeout(QUIET, stream.next()).await {
        held.extend(messages.unwrap());
    }
    assert_eq!(held.len(), 5);
    held.pop().unwrap().ack.ack();
    let more = timeout(QUIET, stream.next()).await.unwrap().unwrap();
    assert_eq!(more.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_held_message_is_redelivered_after_its_maximum_lease() {
    let model = with_subscription(7, Faults::default()).await;
    publish_all(&model, 0..1).await;
    let mut reader = Reader::new(&model, "one");
    let held = reader.next().await;
    let now = started();
    let again = reader.next().await;
    assert_about(now, Duration::from_secs(600));
    again.ack.ack();
    held.ack.ack();
    assert_eq!(model.backlog(&full("one")), Some(0));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_lost_and_all_is_settled_despite_faults_of_delivery() {
    for seed in 0..20 {
        let model = with_subscription(seed, Faults::delivery()).await;
        let publishing = publish_all(&model, 0..300);
        let mut reader = Reader::new(&model, "one");
        let (counts, ()) = tokio::join!(reader.drain(QUIET), publishing);
        assert_all(&counts, 0..300);
        assert!(counts.values().any(|count| *count > 1), "some repeats");
        assert_eq!(model.backlog(&full("one")), Some(0));
    }
}

#[tokio::test(start_paused = true)]
async fn messages_overtake_each_other_within_the_disorder() {
    let faults = Faults {
        disorder: Duration::from_secs(1),
        ..Faults::default()
    };
    let model = with_subscription(8, faults).await;
    publish_all(&model, 0..50).await;
    let mut reader = Reader::new(&model, "one");
    let mut order = Vec::new();
    while let Ok(message) = timeout(QUIET, reader.next()).await {
        order.push(number(&message));
        message.ack.ack();
    }
    assert!(!order.is_sorted());
    order.sort_unstable();
    assert!(order.into_iter().eq(0..50));
}

#[tokio::test(start_paused = true)]
async fn messages_are_kept_for_the_retention_only() {
    let model = with_subscription(9, Faults::default()).await;
    publish_all(&model, 0..5).await;
    tokio::time::sleep(DAY / 2).await;
    publish_all(&model, 5..10).await;
    tokio::time::sleep(DAY / 2 + QUIET).await;
    publish_all(&model, 10..11).await;
    let counts = Reader::new(&model, "one").drain(QUIET).await;
    assert!(counts.into_keys().eq(5..11));
}
