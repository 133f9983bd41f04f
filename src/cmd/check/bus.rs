//! Checks each project of the bus: publishes a batch and reads it back.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use bus::{
    AppName, Batch, Bus, BusAddress, BusError, BusOperation, BusSettings, Content, Epoch, Reader, ReaderItem, Start,
    StreamId, StreamMetadata,
};

use super::{
    clock::Clocks,
    dns,
    report::{Report, millis},
};
use crate::flags::bus::BusArgs;

/// Prefix of the temporary app; a random suffix follows.
const APP: &str = "tributary-check";

/// How long a batch may take from publisher to reader.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(20);

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
    if let Some(address) = args.address().service_address()
        && let Err(problem) = dns::resolve(&address).await
    {
        report.fail("bus", problem);
        return None;
    }
    let settings = args.settings("check", retention);
    let mut usable = true;
    for part in args.address().parts() {
        match check_part(clocks, &part, &settings).await {
            Ok(elapsed) => report.ok(
                "bus",
                format!("{part}: published and read back a batch in {}", millis(elapsed)),
            ),
            Err(problem) => {
                usable = false;
                report.fail("bus", format!("{part}: {problem}"));
            }
        }
    }
    if !usable {
        return None;
    }
    match args.open_with(&settings).await {
        Ok(bus) => Some(bus),
        Err(error) => {
            report.fail("bus", format!("{error:#}"));
            None
        }
    }
}

async fn check_part(clocks: &mut Clocks, part: &BusAddress, settings: &BusSettings) -> Result<Duration, String> {
    let bus = part.open(settings).await.map_err(|error| error.to_string())?;
    let checked = round_trip(clocks, &*bus).await;
    bus.close().await;
    checked.map_err(|(operation, error)| describe(&*bus, operation, &error))
}

async fn round_trip(clocks: &mut Clocks, bus: &dyn Bus) -> Result<Duration, (BusOperation, BusError)> {
    let during = |operation: BusOperation| move |error| (operation, error);
    bus.check().await.map_err(during(BusOperation::Check))?;
    let app: AppName = format!("{APP}-{:08x}", rand::random::<u32>())
        .parse()
        .map_err(|error: bus::InvalidAppName| (BusOperation::ManageTopics, BusError::Refused(error.to_string())))?;
    bus.create(&app).await.map_err(during(BusOperation::ManageTopics))?;
    let result = async {
        let mut reader = bus
            .follow(&app, Start::Now)
            .await
            .map_err(during(BusOperation::CreateSubscription))?;
        let (started, sent) = (Instant::now(), SystemTime::now());
        bus.publish(batch(&app).map_err(during(BusOperation::Publish))?)
            .await
            .map_err(during(BusOperation::Publish))?;
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
            .map_err(during(BusOperation::Read))?;
        clocks.record(
            "the bus",
            UNIX_EPOCH + Duration::from_micros(published),
            (sent, received),
            Duration::ZERO,
        );
        Ok(started.elapsed())
    };
    let result = result.await;
    let removed = bus.remove(&app).await.map_err(during(BusOperation::ManageTopics));
    result.and_then(|elapsed| removed.map(|()| elapsed))
}

/// Reads up to the first batch. Returns its publish time in microseconds since 1970.
async fn first_batch(reader: &mut Reader) -> Result<u64, BusError> {
    loop {
        match reader.next().await {
            Some(Ok(ReaderItem::Delivery(delivery))) => return Ok(delivery.published.0),
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
fn describe(bus: &dyn Bus, operation: BusOperation, error: &BusError) -> String {
    let failure = match operation {
        BusOperation::Check => "cannot look up a topic",
        BusOperation::ManageTopics => "cannot create or remove a topic",
        BusOperation::CreateSubscription => "cannot create a subscription",
        BusOperation::Publish => "cannot publish",
        BusOperation::Read => "cannot read from a subscription",
    };
    format!("{failure}: {error}; {}", bus.advice(operation, error))
}
