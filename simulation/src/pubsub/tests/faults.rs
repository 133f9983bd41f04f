//! Faults of requests, pauses, and determinism.

use super::*;

/// What all subscriptions received and when, in a run with all faults.
async fn run(seed: u64) -> Vec<(u64, Duration)> {
    let model = with_subscription(seed, Faults::requests()).await;
    let started = started();
    let publishing = async {
        publish_all(&model, 0..100).await;
        model.pause();
        tokio::time::sleep(Duration::from_secs(30)).await;
        model.resume();
        publish_all(&model, 100..200).await;
    };
    let reading = async {
        let mut reader = Reader::new(&model, "one");
        let mut all = Vec::new();
        while let Ok(message) = timeout(QUIET * 3, reader.next()).await {
            all.push((number(&message), since(started)));
            message.ack.ack();
        }
        all
    };
    let (all, ()) = tokio::join!(reading, publishing);
    assert_eq!(model.backlog(&full("one")), Some(0));
    all
}

#[tokio::test(start_paused = true)]
async fn nothing_accepted_is_lost_and_a_seed_determines_the_run() {
    for seed in 0..10 {
        let all = run(seed).await;
        let counts = all.iter().map(|(number, _)| (*number, 1)).collect();
        assert_all(&counts, 0..200);
        assert_eq!(run(seed).await, all);
    }
    assert_ne!(run(0).await, run(1).await);
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_an_error_of_an_executed_request() {
    let faults = Faults {
        lost_answer: 1.0,
        ..Faults::default()
    };
    let model = with_subscription(1, faults).await;
    let published = publish(&model, 0).await;
    assert!(matches!(published, Err(ServiceError::Unavailable(_))));
    assert_eq!(model.backlog(&full("one")), Some(1));
}

#[tokio::test(start_paused = true)]
async fn a_failed_request_is_not_executed() {
    let errors = [
        Faults {
            unavailable: 1.0,
            ..Faults::default()
        },
        Faults {
            quota: 1.0,
            ..Faults::default()
        },
        Faults {
            denied: 1.0,
            ..Faults::default()
        },
        Faults {
            hang: 1.0,
            ..Faults::default()
        },
    ];
    for faults in errors {
        let model = with_subscription(2, faults).await;
        assert!(publish(&model, 0).await.is_err());
        assert_eq!(model.backlog(&full("one")), Some(0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_request_is_executed_after_its_caller_gave_up() {
    let faults = Faults {
        late: 1.0,
        ..Faults::default()
    };
    let model = with_subscription(3, faults.clone()).await;
    let given_up = timeout(Duration::from_millis(20), publish(&model, 0)).await;
    assert!(given_up.is_err());
    assert_eq!(model.backlog(&full("one")), Some(0));
    tokio::time::sleep(faults.hang_time + QUIET).await;
    assert_eq!(model.backlog(&full("one")), Some(1));
}

#[tokio::test(start_paused = true)]
async fn a_paused_service_delivers_and_accepts_nothing() {
    let model = with_subscription(4, Faults::default()).await;
    publish_all(&model, 0..2).await;
    let mut reader = Reader::new(&model, "one");
    let (first, second) = (reader.next().await, reader.next().await);
    model.pause();
    first.ack.ack();
    for number in 2..10 {
        assert!(!matches!(timeout(QUIET, publish(&model, number)).await, Ok(Ok(()))));
    }
    assert!(timeout(QUIET, reader.next()).await.is_err());
    model.resume();
    // The acknowledgement is lost, and no lease was extended.
    let (first, again) = (reader.next().await, reader.next().await);
    first.ack.ack();
    again.ack.ack();
    second.ack.ack();
    publish_all(&model, 10..11).await;
    assert!(reader.drain(QUIET).await.contains_key(&10));
    assert_eq!(model.backlog(&full("one")), Some(0));
}

#[tokio::test(start_paused = true)]
async fn new_names_may_seem_missing_and_deleted_ones_existing_for_a_while() {
    let model = model(5);
    let lag = Duration::from_secs(5);
    model.change_faults(|faults| faults.admin_lag = lag);
    let mut missing = 0;
    for _ in 0..20 {
        model.create_topic(TOPIC, DAY).await.unwrap();
        missing += usize::from(model.get_topic(TOPIC).await == Err(ServiceError::NotFound));
        tokio::time::sleep(lag).await;
        assert_eq!(model.get_topic(TOPIC).await, Ok(()));
        model.delete_topic(TOPIC).await.unwrap();
        missing += usize::from(model.get_topic(TOPIC).await == Ok(()));
        tokio::time::sleep(lag).await;
        assert_eq!(model.get_topic(TOPIC).await, Err(ServiceError::NotFound));
    }
    assert!((5..35).contains(&missing), "{missing}");
}

#[tokio::test(start_paused = true)]
async fn a_full_project_has_room_for_no_other_topic() {
    let model = model(6);
    model.change_faults(|faults| faults.max_resources = 1);
    model.create_topic(TOPIC, DAY).await.unwrap();
    let full = model.create_topic("projects/p/topics/other", DAY).await;
    assert!(matches!(
        full,
        Err(ServiceError::ResourceExhausted { reason: None, .. })
    ));
    model.create_topic("projects/q/topics/other", DAY).await.unwrap();
}
