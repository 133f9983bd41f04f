//! Whether the bus answers, and lets a batch be published and read: in each project.

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

/// What the app of a check is called, before something random. It is there for as long as the check takes.
const APP: &str = "tributary-check";

/// How long a batch may be on its way.
const WAY: Duration = Duration::from_secs(20);

/// What is done with a project, and what it takes.
#[derive(Clone, Copy)]
enum Step {
    Answer,
    Create,
    Follow,
    Publish,
    Read,
}

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
    for project in &settings.projects {
        let alone = PubSubSettings {
            projects: vec![project.clone()],
            ..settings.clone()
        };
        match try_project(clocks, alone).await {
            Ok(took) => report.ok(
                "bus",
                format!(
                    "pubsub:{project}: a batch is published and read back in {}",
                    millis(took)
                ),
            ),
            Err(fault) => {
                usable = false;
                report.fault("bus", format!("pubsub:{project}: {fault}"));
            }
        }
    }
    if !usable {
        return None;
    }
    match args.open_with(settings).await {
        Ok(bus) => Some(bus),
        Err(error) => {
            report.fault("bus", format!("{error:#}"));
            None
        }
    }
}

async fn try_project(clocks: &mut Clocks, settings: PubSubSettings) -> Result<Duration, String> {
    let emulator = settings.emulator.clone();
    let bus = PubSub::open(settings).await.map_err(|error| error.to_string())?;
    let tried = try_bus(clocks, &bus).await;
    bus.close().await;
    tried.map_err(|(step, error)| fault(step, &error, emulator.as_deref()))
}

async fn try_bus(clocks: &mut Clocks, bus: &dyn Bus) -> Result<Duration, (Step, BusError)> {
    let at = |step: Step| move |error| (step, error);
    bus.check().await.map_err(at(Step::Answer))?;
    let app: AppName = format!("{APP}-{:08x}", rand::random::<u32>())
        .parse()
        .map_err(|error: bus::InvalidAppName| (Step::Create, BusError::Refused(error.to_string())))?;
    bus.create(&app).await.map_err(at(Step::Create))?;
    let tried = async {
        let mut reader = bus.follow(&app, Start::Now).await.map_err(at(Step::Follow))?;
        let (began, asked) = (Instant::now(), SystemTime::now());
        bus.publish(batch(&app).map_err(at(Step::Publish))?)
            .await
            .map_err(at(Step::Publish))?;
        let answered = SystemTime::now();
        let published = tokio::time::timeout(WAY, read(&mut reader)).await;
        let silent = |_| BusError::Unavailable(format!("what was published did not come within {} s", WAY.as_secs()));
        let published = published
            .map_err(silent)
            .and_then(|read| read)
            .map_err(at(Step::Read))?;
        clocks.heard(
            "the bus",
            UNIX_EPOCH + Duration::from_micros(published),
            (asked, answered),
            Duration::ZERO,
        );
        Ok(began.elapsed())
    };
    let tried = tried.await;
    let removed = bus.remove(&app).await.map_err(at(Step::Create));
    tried.and_then(|took| removed.map(|()| took))
}

/// Reads up to the first batch; returns when the bus accepted it, in microseconds.
async fn read(reader: &mut Reader) -> Result<u64, BusError> {
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

/// What failed, and what to do.
fn fault(step: Step, error: &BusError, emulator: Option<&str>) -> String {
    let (what, rights) = match step {
        Step::Answer => ("it cannot be asked for a topic", "pubsub.topics.get"),
        Step::Create => (
            "a topic cannot be made, or removed",
            "pubsub.topics.create and pubsub.topics.delete",
        ),
        Step::Follow => (
            "a subscription cannot be made",
            "pubsub.subscriptions.create and pubsub.topics.attachSubscription",
        ),
        Step::Publish => ("nothing can be published", "pubsub.topics.publish"),
        Step::Read => ("nothing can be read", "pubsub.subscriptions.consume"),
    };
    let advice = match (error, emulator) {
        (BusError::Denied(_), _) => format!("give the account the right {rights}"),
        (BusError::Quota(_), _) => {
            "raise the project's quota, or name another project beside it (--bus pubsub:ONE,OTHER)".to_owned()
        }
        (_, Some(host)) => format!("is the emulator up at PUBSUB_EMULATOR_HOST={host}?"),
        _ => {
            "is that the project's id, its Pub/Sub API enabled, and pubsub.googleapis.com reached from here?".to_owned()
        }
    };
    format!("{what}: {error} ({advice})")
}
