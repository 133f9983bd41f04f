//! One subscription's messages, over as many streams as its load asks for.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use google_cloud_pubsub::{
    model::Message,
    subscriber::{ShutdownBehavior, handler::Handler},
};
use tokio::{
    sync::mpsc,
    time::{Instant, interval_at},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{clients::Clients, failure::Failure, settings::DURABLE_ACK_DEADLINE};

/// A stream is loud from here on, in messages and bytes a second: Google's serve 10 MB/s each, the emulator's 1,800 messages.
const LOUD_MESSAGES: u64 = 1_000;
const LOUD_BYTES: u64 = 7_000_000;

/// Streams of one subscription at most.
const MAX_STREAMS: u64 = 8;

/// How often the load is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// Messages that wait to be taken; then the streams are not read on.
const WAITING_MESSAGES: usize = 64;

/// What one stream may have handed out and not seen acknowledged. Who settles what it gets may do so half a minute later.
const OUTSTANDING_MESSAGES: i64 = 1_000;
const SETTLED_LATER_MESSAGES: i64 = 20_000;
const OUTSTANDING_BYTES: i64 = 32 << 20;

/// A message is held, its lease extended, for so long at most; then it goes to another.
const MAX_LEASE: Duration = Duration::from_secs(600);

/// A message, or why a stream ended.
pub(super) type Pulled = Result<(Message, Handler), Failure>;

/// A subscription being pulled. Dropping it ends the streams; what they had handed out and nobody settled comes again at once.
pub(super) struct Pull {
    pulled: mpsc::Receiver<Pulled>,
    stop: DropGuard,
}

/// What the streams of one subscription share.
#[derive(Clone)]
struct Shared {
    clients: Arc<Clients>,
    subscription: Arc<str>,
    out: mpsc::Sender<Pulled>,
    durable: bool,
    load: Arc<Load>,
    stop: CancellationToken,
}

#[derive(Default)]
struct Load {
    messages: AtomicU64,
    bytes: AtomicU64,
}

impl Pull {
    /// Begins with one stream.
    pub(super) fn start(clients: Arc<Clients>, subscription: &str, durable: bool) -> Self {
        let (out, pulled) = mpsc::channel(WAITING_MESSAGES);
        let stop = CancellationToken::new();
        let shared = Shared {
            clients,
            subscription: subscription.into(),
            out,
            durable,
            load: Arc::default(),
            stop: stop.clone(),
        };
        tokio::spawn(shared.clone().stream());
        tokio::spawn(shared.grow());
        Self {
            pulled,
            stop: stop.drop_guard(),
        }
    }

    /// Ends the streams, and returns when they have ended. A stream goes by its subscription's name: an old one would take from a new one of the same name.
    pub(super) async fn end(&mut self) {
        self.stop.token().cancel();
        while self.pulled.recv().await.is_some() {}
    }

    /// The next message, or what ended a stream.
    ///
    /// *Cancel safety*: nothing is lost.
    pub(super) async fn next(&mut self) -> Pulled {
        let ended = || Err(Failure::Away("the streams ended".to_owned()));
        self.pulled.recv().await.unwrap_or_else(ended)
    }
}

impl Shared {
    /// Adds streams while those that are there are loud.
    async fn grow(self) {
        let mut streams = 1;
        let mut looks = interval_at(Instant::now() + LOOK, LOOK);
        while self.stop.run_until_cancelled(looks.tick()).await.is_some() && streams < MAX_STREAMS {
            let messages = self.load.messages.swap(0, Ordering::Relaxed);
            let bytes = self.load.bytes.swap(0, Ordering::Relaxed);
            let looks_a_second = 1000 / u64::try_from(LOOK.as_millis()).unwrap_or(1000);
            let a_second = |count: u64| count * looks_a_second / streams;
            if a_second(messages) > LOUD_MESSAGES || a_second(bytes) > LOUD_BYTES {
                streams += 1;
                tracing::debug!(subscription = %self.subscription, streams, "loud: one more stream");
                tokio::spawn(self.clone().stream());
            }
        }
    }

    /// One stream, to its end; what ends it is handed over.
    async fn stream(self) {
        let failed = self.stop.run_until_cancelled(self.copy()).await;
        if let Some(failure) = failed {
            // Where nobody takes it any more, nobody need know.
            let _ = self.out.send(Err(failure)).await;
        }
    }

    async fn copy(&self) -> Failure {
        let (outstanding, lease) = if self.durable {
            (SETTLED_LATER_MESSAGES, DURABLE_ACK_DEADLINE)
        } else {
            (OUTSTANDING_MESSAGES, self.clients.ack_deadline)
        };
        let place = match self.clients.channels.place(self.durable).await {
            Ok(place) => place,
            Err(failure) => return failure,
        };
        let mut stream = place
            .subscriber
            .subscribe(&*self.subscription)
            .set_max_lease(MAX_LEASE)
            .set_max_lease_extension(lease)
            .set_max_outstanding_messages(outstanding)
            .set_max_outstanding_bytes(OUTSTANDING_BYTES)
            .set_shutdown_behavior(ShutdownBehavior::NackImmediately)
            .build();
        loop {
            match stream.next().await {
                Some(Ok((message, handler))) => {
                    self.load.messages.fetch_add(1, Ordering::Relaxed);
                    self.load.bytes.fetch_add(message.data.len() as u64, Ordering::Relaxed);
                    if self.out.send(Ok((message, handler))).await.is_err() {
                        return Failure::Away("nobody reads".to_owned());
                    }
                }
                Some(Err(error)) => return Failure::from(error),
                None => return Failure::Away("the stream ended".to_owned()),
            }
        }
    }
}
