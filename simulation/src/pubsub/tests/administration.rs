//! Topics and subscriptions, and seeks.

use super::*;

#[tokio::test(start_paused = true)]
async fn missing_and_existing_names_are_errors() {
    let model = model(1);
    let missing = full("one");
    assert_eq!(publish(&model, 0).await, Err(ServiceError::NotFound));
    assert_eq!(model.get_topic(TOPIC).await, Err(ServiceError::NotFound));
    assert_eq!(model.delete_topic(TOPIC).await, Err(ServiceError::NotFound));
    assert_eq!(create(&model, "one", None).await, Err(ServiceError::NotFound));
    assert_eq!(model.is_attached(&missing).await, Err(ServiceError::NotFound));
    assert_eq!(model.seek(&missing, at(0)).await, Err(ServiceError::NotFound));
    assert_eq!(model.delete_subscription(&missing).await, Err(ServiceError::NotFound));
    assert!(model.open_stream(&missing, options(1)).await.is_err());
    model.create_topic(TOPIC, DAY).await.unwrap();
    assert_eq!(model.create_topic(TOPIC, DAY).await, Err(ServiceError::AlreadyExists));
    create(&model, "one", None).await.unwrap();
    assert_eq!(create(&model, "one", None).await, Err(ServiceError::AlreadyExists));
    assert_eq!(model.is_attached(&missing).await, Ok(true));
}

#[tokio::test(start_paused = true)]
async fn lists_have_pages_and_hold_one_project() {
    let model = model(2);
    let faults = Faults {
        page_size: 3,
        ..Faults::default()
    };
    model.set_faults(faults);
    let name = |n: u32| format!("projects/p/topics/topic-{n}");
    for n in 0..7 {
        model.create_topic(&name(n), DAY).await.unwrap();
    }
    model.create_topic("projects/pp/topics/other", DAY).await.unwrap();
    let (mut all, mut token) = (Vec::new(), String::new());
    loop {
        let page = model.list_topics("projects/p", token).await.unwrap();
        assert!(page.names.len() <= 3);
        all.extend(page.names);
        token = page.next;
        if token.is_empty() {
            break;
        }
    }
    assert!(all.into_iter().eq((0..7).map(name)));
}

#[tokio::test(start_paused = true)]
async fn a_subscription_of_a_deleted_topic_keeps_its_messages_and_gets_no_others() {
    let model = with_subscription(3, Faults::default()).await;
    publish_all(&model, 0..3).await;
    model.delete_topic(TOPIC).await.unwrap();
    model.create_topic(TOPIC, DAY).await.unwrap();
    publish_all(&model, 3..6).await;
    assert_eq!(model.is_attached(&full("one")).await, Ok(false));
    assert!(Reader::new(&model, "one").drain(QUIET).await.into_keys().eq(0..3));
}

#[tokio::test(start_paused = true)]
async fn the_streams_of_a_deleted_subscription_end() {
    let model = with_subscription(4, Faults::default()).await;
    let mut stream = model.open_stream(&full("one"), options(10)).await.unwrap();
    publish_all(&model, 0..1).await;
    let held = stream.next().await.unwrap();
    model.delete_subscription(&full("one")).await.unwrap();
    assert_eq!(stream.next().await.err(), Some(ServiceError::NotFound));
    // Acknowledgements of the old subscription do not affect the new one.
    create(&model, "one", None).await.unwrap();
    model.seek(&full("one"), at(0)).await.unwrap();
    drop(stream);
    held.into_iter().for_each(|message| message.ack.ack());
    assert_eq!(model.backlog(&full("one")), Some(1));
}

#[tokio::test(start_paused = true)]
async fn an_unused_subscription_expires_and_a_used_one_does_not() {
    let model = with_subscription(5, Faults::default()).await;
    for id in ["used", "unused"] {
        let new = NewSubscription {
            name: &full(id),
            topic: TOPIC,
            ack_deadline: ACK_DEADLINE,
            retention: DAY,
            expiration: Some(DAY),
            retry_delays: None,
        };
        model.create_subscription(new).await.unwrap();
    }
    let stream = model.open_stream(&full("used"), options(10)).await.unwrap();
    tokio::time::sleep(DAY * 2).await;
    let list = model.list_subscriptions("projects/p", String::new()).await.unwrap();
    assert_eq!(list.names, [full("one"), full("used")]);
    drop(stream);
}

#[tokio::test(start_paused = true)]
async fn a_seek_brings_back_exactly_what_was_published_since() {
    let model = with_subscription(6, Faults::default()).await;
    publish_all(&model, 0..5).await;
    tokio::time::sleep(QUIET).await;
    let middle = model.now();
    publish_all(&model, 5..10).await;
    let mut reader = Reader::new(&model, "one");
    assert_all(&reader.drain(QUIET).await, 0..10);
    model.seek(&full("one"), middle).await.unwrap();
    assert!(reader.drain(QUIET).await.into_keys().eq(5..10));
    create(&model, "two", None).await.unwrap();
    model.seek(&full("two"), at(0)).await.unwrap();
    assert_all(&Reader::new(&model, "two").drain(QUIET).await, 0..10);
    model.seek(&full("one"), model.now().later_by(QUIET)).await.unwrap();
    assert_eq!(model.backlog(&full("one")), Some(0));
}

#[tokio::test(start_paused = true)]
async fn after_a_late_seek_older_messages_may_arrive_and_newer_ones_do() {
    let faults = Faults {
        seek_lag: Duration::from_secs(60),
        ..Faults::default()
    };
    let model = with_subscription(7, faults).await;
    publish_all(&model, 0..50).await;
    let middle = model.now();
    publish_all(&model, 50..100).await;
    model.seek(&full("one"), middle).await.unwrap();
    let counts = Reader::new(&model, "one").drain(QUIET * 2).await;
    assert_all(&counts, 50..100);
    assert!(counts.contains_key(&0));
    // History arrives late, too.
    create(&model, "two", None).await.unwrap();
    model.seek(&full("two"), at(0)).await.unwrap();
    let mut reader = Reader::new(&model, "two");
    let early = reader.drain(Duration::from_secs(1)).await;
    assert!(early.len() < 100);
    let late = reader.drain(QUIET * 2).await;
    assert_eq!(early.len() + late.len(), 100);
}

#[tokio::test(start_paused = true)]
async fn what_google_rejects_is_invalid() {
    let model = model(8);
    for name in [
        "shop",
        "projects/p/topics/a1",
        "projects/p/topics/1abc",
        "projects/p/topics/a b c",
    ] {
        let created = model.create_topic(name, DAY).await;
        assert!(matches!(created, Err(ServiceError::Invalid(_))), "{name}");
    }
    let created = model.create_topic(TOPIC, Duration::from_secs(60)).await;
    assert!(matches!(created, Err(ServiceError::Invalid(_))));
    model.create_topic(TOPIC, DAY).await.unwrap();
    let too_large = OutgoingMessage {
        attributes: Vec::new(),
        data: vec![0; 10_000_001].into(),
    };
    let published = model.publish(TOPIC, too_large).await;
    assert!(matches!(published, Err(ServiceError::Invalid(_))));
}
