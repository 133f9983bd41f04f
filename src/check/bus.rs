//! Whether the bus answers, and lets a batch be published and read: in each project.

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
    report::{Report, millis},
};
use crate::bus::BusArgs;

/// What the app of a check is called, before something random. It is there for as long as the check takes.
const APP: &str = "tributary-check";

/// How long a batch may be on its way.
const WAY: Duration = Duration::from_secs(20);

/// Tries each project. The bus, where all of it can be used.
pub(super) async fn look(
    report: &mut Report,
    clocks: &mut Clocks,
    args: Option<BusArgs>,
    retention: Duration,
) -> Option<Arc<dyn Bus>> {
    let Some(args) = args else {
        report.unchecked("bus", "none was named (--bus)");
        return None;
    };
    let settings = args.settings("check", retention);
    let mut usable = true;
    for part in args.address().parts() {
        match try_part(clocks, &part, &settings).await {
            Ok(took) => report.ok(
                "bus",
                format!("{part}: a batch is published and read back in {}", millis(took)),
            ),
            Err(fault) => {
                usable = false;
                report.fault("bus", format!("{part}: {fault}"));
            }
        }
    }
    if !usable {
        return None;
    }
    match args.open_with(&settings).await {
        Ok(bus) => Some(bus),
        Err(error) => {
            report.fault("bus", format!("{error:#}"));
            None
        }
    }
}

async fn try_part(clocks: &mut Clocks, part: &BusAddress, settings: &BusSettings) -> Result<Duration, String> {
    let bus = part.open(settings).await.map_err(|error| error.to_string())?;
    let tried = try_bus(clocks, &*bus).await;
    bus.close().await;
    tried.map_err(|(operation, error)| fault(&*bus, operation, &error))
}

async fn try_bus(clocks: &mut Clocks, bus: &dyn Bus) -> Result<Duration, (BusOperation, BusError)> {
    let at = |operation: BusOperation| move |error| (operation, error);
    bus.check().await.map_err(at(BusOperation::Check))?;
    let app: AppName = format!("{APP}-{:08x}", rand::random::<u32>())
        .parse()
        .map_err(|error: bus::InvalidAppName| (BusOperation::ManageTopics, BusError::Refused(error.to_string())))?;
    bus.create(&app).await.map_err(at(BusOperation::ManageTopics))?;
    let tried = async {
        let mut reader = bus
            .follow(&app, Start::Now)
            .await
            .map_err(at(BusOperation::CreateSubscription))?;
        let (began, asked) = (Instant::now(), SystemTime::now());
        bus.publish(batch(&app).map_err(at(BusOperation::Publish))?)
            .await
            .map_err(at(BusOperation::Publish))?;
        let answered = SystemTime::now();
        let published = tokio::time::timeout(WAY, read(&mut reader)).await;
        let silent = |_| BusError::Unavailable(format!("what was published did not come within {} s", WAY.as_secs()));
        let published = published
            .map_err(silent)
            .and_then(|read| read)
            .map_err(at(BusOperation::Read))?;
        clocks.heard(
            "the bus",
            UNIX_EPOCH + Duration::from_micros(published),
            (asked, answered),
            Duration::ZERO,
        );
        Ok(began.elapsed())
    };
    let tried = tried.await;
    let removed = bus.remove(&app).await.map_err(at(BusOperation::ManageTopics));
    tried.and_then(|took| removed.map(|()| took))
}

/// Reads up to the first batch; returns when the bus accepted it, in microseconds.
async fn read(reader: &mut Reader) -> Result<u64, BusError> {
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

/// Describes what failed and what to do.
fn fault(bus: &dyn Bus, operation: BusOperation, error: &BusError) -> String {
    let failed = match operation {
        BusOperation::Check => "cannot look up a topic",
        BusOperation::ManageTopics => "cannot create or delete a topic",
        BusOperation::CreateSubscription => "cannot create a subscription",
        BusOperation::Publish => "cannot publish",
        BusOperation::Read => "cannot read",
    };
    format!("{failed}: {error}; {}", bus.advice(operation, error))
}
