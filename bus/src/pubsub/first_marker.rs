//! Learns from when on a reader of new messages is complete, on the clock of the service: it
//! publishes a marker after its subscription was created, and takes the marker's publish time.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, stream};
use tokio::{sync::oneshot, time::sleep};

use super::{catch_up, failure::Failure, project::Project};
use crate::{AppName, BusError, PublishTime, Reader};

/// A reader whose marker does not arrive for this long fails to open.
const MAX_WAIT: Duration = Duration::from_secs(10);

/// Interval at which the marker is published again: a stream that ends can hold back a message
/// until its ack deadline.
const REPEAT_INTERVAL: Duration = Duration::from_secs(1);

/// Delay before a publish that failed is retried.
const RETRY_DELAY: Duration = Duration::from_millis(200);

/// Items that may arrive before the marker.
const MAX_EARLY_ITEMS: usize = 1_000;

/// The marker, as the task of the reader awaits it.
pub(super) struct FirstMarker {
    pub(super) text: String,
    pub(super) arrived: oneshot::Sender<PublishTime>,
}

/// The marker, as the caller that opens the reader awaits it.
pub(super) struct AwaitedMarker {
    text: String,
    arrived: oneshot::Receiver<PublishTime>,
}

/// Creates a marker.
pub(super) fn new() -> (FirstMarker, AwaitedMarker) {
    let text = format!("{:016x}.first", system::random::random::<u64>());
    let (sender, receiver) = oneshot::channel();
    let first = FirstMarker {
        text: text.clone(),
        arrived: sender,
    };
    let awaited = AwaitedMarker {
        text,
        arrived: receiver,
    };
    (first, awaited)
}

impl AwaitedMarker {
    /// Publishes the marker until it arrives, and returns the reader with its publish time as the
    /// start.
    ///
    /// If this process may not publish, its own clock decides.
    ///
    /// # Errors
    /// The marker does not arrive.
    pub(super) async fn wait(
        mut self,
        project: &Arc<Project>,
        app: &AppName,
        reader: Reader,
    ) -> Result<Reader, BusError> {
        let deadline = sleep(MAX_WAIT);
        let publishing = publish(project, app, self.text);
        tokio::pin!(deadline, publishing);
        let mut items = reader.items;
        let mut early = Vec::new();
        let since = loop {
            tokio::select! {
                biased;
                arrived = &mut self.arrived => match arrived {
                    Ok(published) => break published,
                    Err(_) => return Err(BusError::Closed),
                },
                item = items.next(), if early.len() < MAX_EARLY_ITEMS => match item {
                    Some(item) => early.push(item),
                    None => return Err(BusError::Closed),
                },
                failure = &mut publishing => {
                    tracing::warn!(%app, ?failure, "marker publish failed, this machine's clock decides where a reader starts");
                    break project.now();
                }
                () = &mut deadline => return Err(Failure::timeout(MAX_WAIT).into_bus_error()),
            }
        };
        let items = stream::iter(early).chain(items).boxed();
        let reader = Reader::new(items, since, false);
        Ok(reader.with_clock(Arc::clone(&project.shared.clock)))
    }
}

/// Publishes the marker again and again. Returns a failure that is permanent.
async fn publish(project: &Project, app: &AppName, text: String) -> Failure {
    loop {
        let marker = match catch_up::marker_batch(app, text.clone()) {
            Ok(marker) => marker,
            Err(error) => return Failure::Refused(error.to_string()),
        };
        match project.publish(&marker).await {
            Ok(()) => sleep(REPEAT_INTERVAL).await,
            Err(failure @ (Failure::Denied(_) | Failure::Refused(_))) => return failure,
            Err(_) => sleep(RETRY_DELAY).await,
        }
    }
}
