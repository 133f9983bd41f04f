//! Checks each project of the bus: publishes a batch and reads it back.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use bus::{
    AppName, Batch, Bus, BusError, Content, Epoch, Item, PubSub, PubSubSettings, Reader, Start, StreamId,
    StreamMetadata,
};

use super::{
    clock::Clocks,
    report::{Report, millis},
};
use crate::flags::bus::BusArgs;

/// Prefix of the temporary app; a random suffix follows.
const APP: &str = "tributary-check";

/// How long a batch may take from publisher to reader.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(20);

/// The operation that failed.
#[derive(Clone, Copy)]
enum Operation {
    Connect,
    CreateTopic,
    Subscribe,
    Publish,
    Pull,
}

/// Checks each project. Returns the bus if all projects work.
pub(super) async fn check(
    report: &mut Report,
    clocks: &mut Clocks,
    args: Option<BusArgs>,
    retention: Duration,
) -> Option<Arc<dyn Bus>> {
    let Some(args) = args else {
        report.skip("bus", "no bus set; set --bus to check it");
        return None;
    };
    let settings = args.settings("check", retention);
    let mut usable = true;
    for project in &settings.projects {
        let alone = PubSubSettings {
            projects: vec![project.clone()],
            ..settings.clone()
        };
        match check_project(clocks, alone).await {
            Ok(elapsed) => report.ok(
                "bus",
                format!(
                    "pubsub:{project}: published and read back a batch in {}",
                    millis(elapsed)
                ),
            ),
            Err(problem) => {
                usable = false;
                report.fail("bus", format!("pubsub:{project}: {problem}"));
            }
        }
    }
    if !usable {
        return None;
    }
    match args.open_with(settings).await {
        Ok(bus) => Some(bus),
        Err(error) => {
            report.fail("bus", format!("{error:#}"));
            None
        }
    }
}

async fn check_project(clocks: &mut Clocks, settings: PubSubSettings) -> Result<Duration, String> {
    let emulator = settings.emulator.clone();
    let bus = PubSub::open(settings).await.map_err(|error| error.to_string())?;
    let checked = round_trip(clocks, &bus).await;
    bus.close().await;
    checked.map_err(|(operation, error)| describe(operation, &error, emulator.as_deref()))
}

async fn round_trip(clocks: &mut Clocks, bus: &dyn Bus) -> Result<Duration, (Operation, BusError)> {
    let during = |operation: Operation| move |error| (operation, error);
    bus.check().await.map_err(during(Operation::Connect))?;
    let app: AppName = format!("{APP}-{:08x}", rand::random::<u32>())
        .parse()
        .map_err(|error: bus::InvalidAppName| (Operation::CreateTopic, BusError::Refused(error.to_string())))?;
    bus.create(&app).await.map_err(during(Operation::CreateTopic))?;
    let result = async {
        let mut reader = bus
            .follow(&app, Start::Now)
            .await
            .map_err(during(Operation::Subscribe))?;
        let (started, sent) = (Instant::now(), SystemTime::now());
        bus.publish(batch(&app).map_err(during(Operation::Publish))?)
            .await
            .map_err(during(Operation::Publish))?;
        let received = SystemTime::now();
        let published = tokio::time::timeout(DELIVERY_TIMEOUT, first_batch(&mut reader)).await;
        let timeout = |_| {
            BusError::Unavailable(format!(
                "the published batch did not arrive within {} s",
                DELIVERY_TIMEOUT.as_secs()
            ))
        };
        let published = published
            .map_err(timeout)
            .and_then(|read| read)
            .map_err(during(Operation::Pull))?;
        clocks.record(
            "the bus",
            UNIX_EPOCH + Duration::from_micros(published),
            (sent, received),
            Duration::ZERO,
        );
        Ok(started.elapsed())
    };
    let result = result.await;
    let removed = bus.remove(&app).await.map_err(during(Operation::CreateTopic));
    result.and_then(|elapsed| removed.map(|()| elapsed))
}

/// Reads up to the first batch. Returns its publish time in microseconds since 1970.
async fn first_batch(reader: &mut Reader) -> Result<u64, BusError> {
    loop {
        match reader.next().await {
            Some(Ok(Item::Delivery(delivery))) => return Ok(delivery.published.0),
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(error),
            None => return Err(BusError::Closed),
        }
    }
}

fn batch(app: &AppName) -> Result<Batch, BusError> {
    let stream = StreamId::new("check", "-", "-", Epoch::new());
    let stream = stream.map_err(|error| BusError::Refused(error.to_string()))?;
    Ok(Batch {
        metadata: Arc::new(StreamMetadata::tributary(app.clone(), stream, "")),
        seq: 0,
        content: Content::End,
    })
}

/// Describes a failure: the operation, the cause and what to do.
fn describe(operation: Operation, error: &BusError, emulator: Option<&str>) -> String {
    let (failure, rights) = match operation {
        Operation::Connect => ("cannot look up a topic", "pubsub.topics.get"),
        Operation::CreateTopic => (
            "cannot create or remove a topic",
            "pubsub.topics.create and pubsub.topics.delete",
        ),
        Operation::Subscribe => (
            "cannot create a subscription",
            "pubsub.subscriptions.create and pubsub.topics.attachSubscription",
        ),
        Operation::Publish => ("cannot publish", "pubsub.topics.publish"),
        Operation::Pull => ("cannot read from a subscription", "pubsub.subscriptions.consume"),
    };
    let advice = match (error, emulator) {
        (BusError::Denied(_), _) => format!("grant the account {rights}"),
        (BusError::Quota(_), _) => {
            "raise the project's quota, or add a second project: --bus pubsub:ONE,OTHER".to_owned()
        }
        (_, Some(host)) => format!("check that the emulator is up at PUBSUB_EMULATOR_HOST={host}"),
        _ => {
            "check the project id, that its Pub/Sub API is enabled, and that pubsub.googleapis.com is reachable from here".to_owned()
        }
    };
    format!("{failure}: {error}; {advice}")
}
