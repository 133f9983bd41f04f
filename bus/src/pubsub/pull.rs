//! Receives the messages of one subscription, over a number of streams that follows the load.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use system::{clock::steady, task::spawn};
use tokio::{sync::mpsc, time::interval_at};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    durable::DURABLE_ACK_DEADLINE,
    failure::Failure,
    service::{PullOptions, ReceivedMessage, Service, ServiceError},
};

/// Load per stream and second from which on a stream is added. Google serves 10 MB/s per stream,
/// the emulator 1,800 messages.
const HIGH_LOAD_MESSAGES: u64 = 1_000;
const HIGH_LOAD_BYTES: u64 = 7_000_000;

/// Maximum streams per subscription.
const MAX_STREAMS: u64 = 8;

/// Interval of load measurements.
const LOAD_INTERVAL: Duration = Duration::from_millis(500);

/// Maximum messages that wait for the reader; then the streams pause.
const MAX_WAITING_MESSAGES: usize = 64;

/// Maximum unacknowledged messages and bytes per stream. Readers of durable subscriptions may
/// acknowledge half a minute later.
const MAX_OUTSTANDING_MESSAGES: i64 = 1_000;
const MAX_OUTSTANDING_DURABLE_MESSAGES: i64 = 20_000;
const MAX_OUTSTANDING_BYTES: i64 = 32 << 20;
/// More than such a reader holds unconfirmed, so that it is never the bus that waits for it.
const MAX_OUTSTANDING_DURABLE_BYTES: i64 = 64 << 20;

/// Maximum time for which the lease of a message is extended.
const MAX_LEASE: Duration = Duration::from_secs(600);

/// A message, or why a stream ended.
pub(super) type Pulled = Result<ReceivedMessage, Failure>;

/// Pulls a subscription. Dropping it ends the streams and nacks their unacknowledged messages.
pub(super) struct Pull {
    pulled: mpsc::Receiver<Pulled>,
    stop: DropGuard,
}

/// State shared by the streams of one subscription.
#[derive(Clone)]
struct Shared {
    service: Arc<dyn Service>,
    subscription: Arc<str>,
    options: PullOptions,
    out: PullSender,
    stop: CancellationToken,
}

/// Where a stream sends its messages.
#[derive(Clone)]
pub struct PullSender {
    out: mpsc::Sender<Pulled>,
    load: Arc<Load>,
}

#[derive(Default)]
struct Load {
    messages: AtomicU64,
    bytes: AtomicU64,
}

impl Pull {
    /// Starts with one stream.
    pub(super) fn start(service: Arc<dyn Service>, subscription: &str, options: PullOptions) -> Self {
        let (out, pulled) = mpsc::channel(MAX_WAITING_MESSAGES);
        let stop = CancellationToken::new();
        let shared = Shared {
            service,
            subscription: subscription.into(),
            options,
            out: PullSender {
                out,
                load: Arc::default(),
            },
            stop: stop.clone(),
        };
        spawn(shared.clone().stream());
        spawn(shared.grow());
        Self {
            pulled,
            stop: stop.drop_guard(),
        }
    }

    /// Ends the streams and waits for their end. Otherwise a stream could receive the messages of a
    /// new subscription of the same name.
    pub(super) async fn end(&mut self) {
        self.stop.token().cancel();
        while self.pulled.recv().await.is_some() {}
    }

    /// Waits for the next message or the end of a stream.
    ///
    /// *Cancel safety*: cancelling the call loses no message.
    pub(super) async fn next(&mut self) -> Pulled {
        let ended = || Err(Failure::Unavailable("the streams ended".to_owned()));
        self.pulled.recv().await.unwrap_or_else(ended)
    }
}

impl Shared {
    /// Adds streams while the load per stream is high.
    async fn grow(self) {
        let mut streams = 1;
        let mut measurements = interval_at(steady() + LOAD_INTERVAL, LOAD_INTERVAL);
        while self.stop.run_until_cancelled(measurements.tick()).await.is_some() && streams < MAX_STREAMS {
            let messages = self.out.load.messages.swap(0, Ordering::Relaxed);
            let bytes = self.out.load.bytes.swap(0, Ordering::Relaxed);
            let measurements_per_second = 1000 / u64::try_from(LOAD_INTERVAL.as_millis()).unwrap_or(1000);
            let per_stream = |count: u64| count * measurements_per_second / streams;
            if per_stream(messages) > HIGH_LOAD_MESSAGES || per_stream(bytes) > HIGH_LOAD_BYTES {
                streams += 1;
                tracing::debug!(subscription = %self.subscription, streams, "pull stream added");
                spawn(self.clone().stream());
            }
        }
    }

    /// Runs one stream and sends the failure that ends it.
    async fn stream(self) {
        let pull = self.service.pull(&self.subscription, self.options, self.out.clone());
        if let Some(ended) = self.stop.run_until_cancelled(pull).await {
            // The receiver may have been dropped.
            let _ = self.out.out.send(Err(ended.into())).await;
        }
    }
}

impl PullSender {
    /// Sends a message once there is room for it.
    ///
    /// # Errors
    /// The receiver was dropped: the stream ends with this error.
    pub async fn send(&self, message: ReceivedMessage) -> Result<(), ServiceError> {
        self.load.messages.fetch_add(1, Ordering::Relaxed);
        self.load.bytes.fetch_add(message.data.len() as u64, Ordering::Relaxed);
        let dropped = |_| ServiceError::Unavailable("the reader was dropped".to_owned());
        self.out.send(Ok(message)).await.map_err(dropped)
    }
}

/// Returns the options of a temporary subscription with this ack deadline.
pub(super) fn temporary_options(ack_deadline: Duration) -> PullOptions {
    PullOptions {
        durable: false,
        max_outstanding_messages: MAX_OUTSTANDING_MESSAGES,
        max_outstanding_bytes: MAX_OUTSTANDING_BYTES,
        lease_extension: ack_deadline,
        max_lease: MAX_LEASE,
    }
}

/// Returns the options of a durable subscription.
pub(super) fn durable_options() -> PullOptions {
    PullOptions {
        durable: true,
        max_outstanding_messages: MAX_OUTSTANDING_DURABLE_MESSAGES,
        max_outstanding_bytes: MAX_OUTSTANDING_DURABLE_BYTES,
        ..temporary_options(DURABLE_ACK_DEADLINE)
    }
}
