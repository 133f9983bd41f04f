//! What flows: batches, and the bus that carries them from collectors to streamers and sinks.
//!
//! Reading order is data order: a [`Batch`] of a stream's lines is [published](Bus::publish), an engine ([`Embedded`] on one machine, [`PubSub`] on a cluster)
//! keeps it, a [`Reader`] delivers it, and [reassembly](reassembly::Reassembly) turns deliveries into every line once, in order, with every loss told.
//!
//! Knows no HTTP and no Kubernetes.

mod ack;
mod app;
mod batch;
pub mod cursor;
mod embedded;
mod encoding;
mod error;
mod level;
pub mod notice;
#[cfg(feature = "pubsub")]
mod pubsub;
pub mod reassembly;
mod stream;
mod time;
mod wire;

use std::time::Duration;

use futures::{FutureExt, StreamExt, future::BoxFuture, stream::BoxStream};

pub use ack::{Ack, Outcome};
pub use app::{AppName, InvalidAppName};
pub use batch::{
    Batch, Content, Delivery, Fd, Loss, LossReason, MAX_BATCH_BYTES, MAX_LINE_BYTES, Origin, Part, VERSION,
};
pub use embedded::{Embedded, Limits};
pub use error::BusError;
pub use level::Level;
#[cfg(feature = "pubsub")]
pub use pubsub::{EMULATOR_VARIABLE, PubSub, PubSubSettings};
pub use stream::{Epoch, InvalidStreamId, StreamId};
pub use time::{Published, Timestamp};
pub use wire::Unreadable;

/// A topic per app: whatever is accepted is kept for the retention and delivered to every reader, at least once.
///
/// Nothing is promised about the order of deliveries unless [`Reader::in_order`] says so: readers restore it by seq.
pub trait Bus: Send + Sync + 'static {
    /// Makes an app's topic. One that exists is success.
    ///
    /// # Errors
    /// [`BusError`]; try again where it is transient.
    fn create<'a>(&'a self, app: &'a AppName) -> BoxFuture<'a, Result<(), BusError>>;

    /// Hands a batch over to the topic of its app, made where it does not exist; returns once the bus has it for good.
    ///
    /// *Order*: a stream's batches keep theirs when the next is published after this returned.
    ///
    /// *Cancel safety*: a dropped call may or may not have been accepted; publish again under the same seqs.
    ///
    /// # Errors
    /// Transient ones are to be tried again with the same batch; for the others the batch is refused for good and becomes a loss.
    fn publish(&self, batch: Batch) -> BoxFuture<'_, Result<(), BusError>>;

    /// Reads an app from some time on, for one reader that settles nothing.
    ///
    /// What was accepted since `start` and is still kept comes first, then [`Item::CaughtUp`], then what is accepted from then on, for ever.
    ///
    /// # Errors
    /// [`BusError::UnknownApp`] where there is no such topic.
    fn follow<'a>(&'a self, app: &'a AppName, start: Start) -> BoxFuture<'a, Result<Reader, BusError>>;

    /// Reads an app through a durable subscription of this name, made where it does not exist, beginning then with what comes after.
    ///
    /// Each delivery carries an [`Ack`]; what is not accepted comes again, also to the next reader after this one is dropped. One reader at a time.
    ///
    /// # Errors
    /// [`BusError::UnknownApp`] where there is no such topic, [`BusError::Subscribed`] where another reader has the subscription.
    fn subscribe<'a>(&'a self, app: &'a AppName, name: &'a str) -> BoxFuture<'a, Result<Reader, BusError>>;

    /// Makes a durable subscription where it does not exist, without reading it: it begins with what comes after. One that is being read is success.
    ///
    /// # Errors
    /// [`BusError::UnknownApp`] where there is no such topic.
    fn ensure_subscription<'a>(&'a self, app: &'a AppName, name: &'a str) -> BoxFuture<'a, Result<(), BusError>>;

    /// Removes a durable subscription. One that does not exist is success.
    ///
    /// # Errors
    /// [`BusError`]; try again where it is transient.
    fn unsubscribe<'a>(&'a self, app: &'a AppName, name: &'a str) -> BoxFuture<'a, Result<(), BusError>>;

    /// The apps that have a topic, sorted.
    ///
    /// # Errors
    /// [`BusError`]; try again where it is transient.
    fn apps(&self) -> BoxFuture<'_, Result<Vec<AppName>, BusError>>;

    /// The apps that have a durable subscription, whether it is being read or not. Sorted.
    ///
    /// # Errors
    /// [`BusError`]; try again where it is transient.
    fn subscribed(&self) -> BoxFuture<'_, Result<Vec<AppName>, BusError>>;

    /// Removes an app's topic and all that it keeps. One that does not exist is success. Its readers end, or wait for it to be made again and then go on
    /// behind an [`Item::Break`].
    ///
    /// # Errors
    /// [`BusError`]; try again where it is transient.
    fn remove<'a>(&'a self, app: &'a AppName) -> BoxFuture<'a, Result<(), BusError>>;

    /// Whether the bus answers just now: what a readiness probe asks.
    ///
    /// # Errors
    /// Why it does not.
    fn check(&self) -> BoxFuture<'_, Result<(), BusError>>;
}

/// Where a reader of an app begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// With what is accepted after the call.
    Now,
    /// With the first batch accepted at or after this time.
    At(Published),
    /// With the oldest that is kept.
    Oldest,
}

/// One thing a reader is told.
#[derive(Debug)]
pub enum Item {
    /// A batch.
    Delivery(Delivery),
    /// A message that cannot be read as a batch: skip it, count it, say so.
    Unreadable(Unreadable),
    /// All that was accepted before the reader was made has been delivered. Comes once. A durable subscription never says so.
    CaughtUp,
    /// The reader's continuity is broken: of what was accepted between these times, some may never be delivered.
    Break {
        /// Last known good.
        from: Published,
        /// Good again.
        to: Published,
    },
}

/// A reader of one app. Dropping it ends the reading.
pub struct Reader {
    items: BoxStream<'static, Result<Item, BusError>>,
    since: Published,
    in_order: bool,
    ack_deadline: Duration,
}

impl Reader {
    /// One that delivers these items: all that was accepted `since`; `in_order` where deliveries never overtake each other.
    pub fn new(items: BoxStream<'static, Result<Item, BusError>>, since: Published, in_order: bool) -> Self {
        Self {
            items: items.fuse().boxed(),
            since,
            in_order,
            ack_deadline: Duration::ZERO,
        }
    }

    /// The same, of a subscription whose messages come again where nobody has settled them or held on to them for so long.
    #[must_use]
    pub fn with_ack_deadline(mut self, ack_deadline: Duration) -> Self {
        self.ack_deadline = ack_deadline;
        self
    }

    /// How long what went to a reader that died may take to come again. 0: it comes at once.
    pub fn ack_deadline(&self) -> Duration {
        self.ack_deadline
    }

    /// The bus time from which on nothing is missing: the time asked for, or later where retention had taken some. 0: from the topic's very first batch.
    pub fn since(&self) -> Published {
        self.since
    }

    /// Whether deliveries of a stream come in the order they were accepted. Then what is missing will not come, and nothing need be held.
    pub fn in_order(&self) -> bool {
        self.in_order
    }

    /// The next item. `None`: the bus closed, or the app was removed.
    ///
    /// *Cancel safety*: nothing is lost when the call is dropped.
    ///
    /// # Errors
    /// [`BusError`]; the reader is then of no more use: make another from where it was.
    pub async fn next(&mut self) -> Option<Result<Item, BusError>> {
        self.items.next().await
    }

    /// The next item if one is there at once, without waiting.
    pub fn try_next(&mut self) -> Option<Result<Item, BusError>> {
        self.items.next().now_or_never().flatten()
    }
}
