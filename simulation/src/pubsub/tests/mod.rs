//! The promises of the model, on paused time.

mod administration;
mod delivery;
mod faults;

use std::{collections::BTreeMap, time::Duration};

use bus::{
    PublishTime,
    pubsub_service::{
        NewSubscription, OutgoingMessage, PullOptions, ReceivedMessage, RetryDelays, Service, ServiceError,
    },
};
use bytes::Bytes;
use rand::{SeedableRng, rngs::StdRng};
use system::clock::{Instant, since, steady};
use tokio::time::timeout;

use super::{Faults, PubSubModel, streams::OpenStream};

const TOPIC: &str = "projects/p/topics/shop";
const DAY: Duration = Duration::from_secs(86_400);
const ACK_DEADLINE: Duration = Duration::from_secs(10);
const WALL: Duration = Duration::from_secs(1_800_000_000);

fn model(seed: u64) -> PubSubModel {
    PubSubModel::new(StdRng::seed_from_u64(seed), WALL)
}

/// A model with a topic and subscription `one`.
async fn with_subscription(seed: u64, faults: Faults) -> PubSubModel {
    let model = model(seed);
    model.create_topic(TOPIC, DAY).await.unwrap();
    create(&model, "one", None).await.unwrap();
    model.set_faults(faults);
    model
}

fn full(id: &str) -> String {
    format!("projects/p/subscriptions/{id}")
}

async fn create(model: &PubSubModel, id: &str, retry_delays: Option<RetryDelays>) -> Result<(), ServiceError> {
    let new = NewSubscription {
        name: &full(id),
        topic: TOPIC,
        ack_deadline: ACK_DEADLINE,
        retention: DAY,
        expiration: None,
        retry_delays,
    };
    model.create_subscription(new).await
}

/// Publishes a message with this number as its text.
async fn publish(model: &PubSubModel, number: u64) -> Result<(), ServiceError> {
    let message = OutgoingMessage {
        attributes: vec![("n", number.to_string())],
        data: Bytes::from(vec![b'x'; 100]),
    };
    model.publish(TOPIC, message).await
}

async fn publish_all(model: &PubSubModel, numbers: std::ops::Range<u64>) {
    for number in numbers {
        while publish(model, number).await.is_err() {}
    }
}

fn number(message: &ReceivedMessage) -> u64 {
    message.attributes["n"].parse().unwrap()
}

fn options(max_outstanding_messages: i64) -> PullOptions {
    PullOptions {
        durable: true,
        max_outstanding_messages,
        max_outstanding_bytes: 1 << 20,
        lease_extension: ACK_DEADLINE,
        max_lease: Duration::from_secs(600),
    }
}

/// A reader of a subscription that reopens streams that end.
struct Reader {
    model: PubSubModel,
    name: String,
    stream: Option<OpenStream>,
    waiting: Vec<ReceivedMessage>,
}

impl Reader {
    fn new(model: &PubSubModel, id: &str) -> Self {
        Self {
            model: model.clone(),
            name: full(id),
            stream: None,
            waiting: Vec::new(),
        }
    }

    async fn next(&mut self) -> ReceivedMessage {
        loop {
            if !self.waiting.is_empty() {
                return self.waiting.remove(0);
            }
            if self.stream.is_none() {
                self.stream = self.model.open_stream(&self.name, options(1000)).await.ok();
            }
            if let Some(stream) = &mut self.stream {
                match stream.next().await {
                    Ok(messages) => self.waiting = messages,
                    Err(_) => self.stream = None,
                }
            }
        }
    }

    /// Acknowledges what arrives until nothing arrives for a while, and counts it.
    async fn drain(&mut self, quiet: Duration) -> BTreeMap<u64, usize> {
        let mut counts = BTreeMap::new();
        while let Ok(message) = timeout(quiet, self.next()).await {
            *counts.entry(number(&message)).or_default() += 1;
            message.ack.ack();
        }
        counts
    }
}

fn assert_all(counts: &BTreeMap<u64, usize>, numbers: std::ops::Range<u64>) {
    let missing: Vec<u64> = numbers.filter(|number| !counts.contains_key(number)).collect();
    assert!(missing.is_empty(), "missing: {missing:?}");
}

const QUIET: Duration = Duration::from_secs(60);

fn assert_about(started: Instant, expected: Duration) {
    let passed = since(started);
    let tolerance = Duration::from_millis(200);
    assert!(
        passed + tolerance >= expected && passed <= expected + tolerance,
        "{passed:?}"
    );
}

fn started() -> Instant {
    steady()
}

fn at(seconds: u64) -> PublishTime {
    PublishTime((WALL.as_secs() + seconds) * 1_000_000)
}
