//! The bus as its users see it: what every engine implements.

use std::{sync::Arc, time::Duration};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream::BoxStream};

use crate::{
    app::AppName,
    batch::{Batch, Delivery},
    bus_clock::BusClock,
    error::BusError,
    time::PublishTime,
    wire::Unreadable,
};

/// A topic per app. An accepted batch is stored for the retention period and delivered to every
/// reader at least once.
///
/// Deliveries are unordered unless [`Reader::in_order`] is true; readers restore the order by
/// sequence number.
pub trait Bus: Send + Sync + 'static {
    /// Creates an app's topic. An existing topic is success.
    ///
    /// # Errors
    /// [`BusError`]; retry if it is transient.
    fn create<'a>(&'a self, app: &'a AppName) -> BoxFuture<'a, Result<(), BusError>>;

    /// Publishes a batch to its app's topic, which is created if it does not exist. Returns when
    /// the bus has stored the batch durably.
    ///
    /// *Order*: batches of a stream keep their order if each is published after the previous call
    /// returned.
    ///
    /// *Cancel safety*: the batch of a cancelled call may or may not be accepted; publish it again
    /// with the same sequence numbers.
    ///
    /// # Errors
    /// Retry a transient error with the same batch. With any other error the batch is rejected for
    /// good, and its lines become a gap.
    fn publish(&self, batch: Batch) -> BoxFuture<'_, Result<(), BusError>>;

    /// Reads an app from `start` on, without acknowledgement.
    ///
    /// The reader first delivers the batches that were accepted since `start` and are still
    /// stored, then [`ReaderItem::CaughtUp`], then new batches as they are accepted.
    ///
    /// # Errors
    /// [`BusError::UnknownApp`] if the topic does not exist.
    fn follow<'a>(&'a self, app: &'a AppName, start: Start) -> BoxFuture<'a, Result<Reader, BusError>>;

    /// Reads an app through the durable subscription `name`, which is created if it does not
    /// exist and then starts with batches accepted from now on.
    ///
    /// Each delivery carries an [`Ack`](crate::Ack). Unacknowledged batches are redelivered, also
    /// to the next reader of the subscription. A subscription has one reader at a time.
    ///
    /// # Errors
    /// [`BusError::UnknownApp`] if the topic does not exist, [`BusError::SubscriptionInUse`] if
    /// the subscription has a reader.
    fn subscribe<'a>(&'a self, app: &'a AppName, name: &'a str) -> BoxFuture<'a, Result<Reader, BusError>>;

    /// Creates a durable subscription without reading it; it starts with batches accepted from
    /// now on. An existing subscription is success, also while it is being read.
    ///
    /// # Errors
    /// [`BusError::UnknownApp`] if the topic does not exist.
    fn ensure_subscription<'a>(&'a self, app: &'a AppName, name: &'a str) -> BoxFuture<'a, Result<(), BusError>>;

    /// Deletes a durable subscription. A missing subscription is success.
    ///
    /// # Errors
    /// [`BusError`]; retry if it is transient.
    fn unsubscribe<'a>(&'a self, app: &'a AppName, name: &'a str) -> BoxFuture<'a, Result<(), BusError>>;

    /// Lists the apps that have a topic, sorted by name.
    ///
    /// # Errors
    /// [`BusError`]; retry if it is transient.
    fn apps(&self) -> BoxFuture<'_, Result<Vec<AppName>, BusError>>;

    /// Lists the apps that have a durable subscription, sorted by name, whether or not it is being
    /// read.
    ///
    /// # Errors
    /// [`BusError`]; retry if it is transient.
    fn apps_with_subscriptions(&self) -> BoxFuture<'_, Result<Vec<AppName>, BusError>>;

    /// Deletes an app's topic with its batches and durable subscriptions. A missing topic is
    /// success. Readers of the app end, or wait until the topic is created again and continue
    /// after a [`ReaderItem::Interrupted`].
    ///
    /// # Errors
    /// [`BusError`]; retry if it is transient.
    fn remove<'a>(&'a self, app: &'a AppName) -> BoxFuture<'a, Result<(), BusError>>;

    /// Returns the time of the bus, as far as this process has seen it. `None` if it has read
    /// nothing, or if the engine uses the clock of this machine.
    fn now(&self) -> Option<PublishTime> {
        None
    }

    /// Checks that the bus answers, for readiness probes.
    ///
    /// # Errors
    /// The reason why the bus is not usable.
    fn check(&self) -> BoxFuture<'_, Result<(), BusError>>;

    /// Runs the engine's background maintenance for a process that reads, until
    /// [`close`](Self::close): this replica's heartbeat, and the removal of subscriptions that dead
    /// replicas left behind. Returns immediately if the engine needs no
    /// maintenance.
    fn run_housekeeping(&self) -> BoxFuture<'_, ()> {
        std::future::ready(()).boxed()
    }

    /// Ends all readers and removes their temporary subscriptions, within ten seconds.
    fn close(&self) -> BoxFuture<'_, ()> {
        std::future::ready(()).boxed()
    }

    /// Tells an operator how to fix `error`, which a call for `operation` returned: a phrase
    /// without a final full stop.
    fn advice(&self, operation: BusOperation, error: &BusError) -> String {
        let _ = (operation, error);
        "check that the bus is running and reachable".to_owned()
    }
}

/// Kinds of bus calls that need different permissions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BusOperation {
    /// [`Bus::check`].
    Check,
    /// [`Bus::create`] and [`Bus::remove`].
    ManageTopics,
    /// [`Bus::follow`] and [`Bus::subscribe`] up to the first item.
    CreateSubscription,
    /// [`Bus::publish`].
    Publish,
    /// [`Reader::next`].
    Read,
}

/// Position at which a reader of an app starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Batches accepted after the call.
    Now,
    /// The first batch accepted at or after this time.
    At(PublishTime),
    /// The oldest stored batch.
    Oldest,
}

/// One item of a reader.
#[derive(Debug)]
pub enum ReaderItem {
    /// A batch.
    Delivery(Delivery),
    /// A message that is not a readable batch. The reader skips, counts and reports it.
    Unreadable(Unreadable),
    /// All batches accepted before the reader was opened have been delivered. Sent once; never by
    /// a durable subscription.
    CaughtUp,
    /// The end of the stored batches was not confirmed in time: some of those accepted between these
    /// times may be missing, although nothing is known to be lost. [`ReaderItem::CaughtUp`] follows.
    HistoryCut {
        /// Start of the reader.
        from: PublishTime,
        /// The time of the bus.
        to: PublishTime,
    },
    /// The subscription was interrupted: batches accepted between these times may be missing.
    Interrupted {
        /// Up to this time the reader is complete.
        from: PublishTime,
        /// From this time on the reader is complete again.
        to: PublishTime,
    },
}

/// A reader of one app. Dropping it closes the subscription.
pub struct Reader {
    pub(crate) items: BoxStream<'static, Result<ReaderItem, BusError>>,
    since: PublishTime,
    in_order: bool,
    ack_deadline: Duration,
    clock: Arc<BusClock>,
}

impl Reader {
    /// Creates a reader of `items`, which hold every batch accepted since `since`. `in_order`
    /// states that deliveries never overtake each other.
    pub fn new(items: BoxStream<'static, Result<ReaderItem, BusError>>, since: PublishTime, in_order: bool) -> Self {
        Self {
            items: items.fuse().boxed(),
            since,
            in_order,
            ack_deadline: Duration::ZERO,
            clock: Arc::new(BusClock::at(since)),
        }
    }

    /// Sets the clock that the engine's readers share.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<BusClock>) -> Self {
        self.clock = clock;
        self
    }

    /// Returns the time of the bus, as far as its deliveries show it; 0 before the first.
    pub fn now(&self) -> PublishTime {
        self.clock.now_or_zero()
    }

    /// Sets the ack deadline of the subscription.
    #[must_use]
    pub fn with_ack_deadline(mut self, ack_deadline: Duration) -> Self {
        self.ack_deadline = ack_deadline;
        self
    }

    /// Returns the time after which a delivery to a reader that crashed is redelivered. Zero: at
    /// once.
    pub fn ack_deadline(&self) -> Duration {
        self.ack_deadline
    }

    /// Returns the publish time from which on the reader is complete: the requested time, or a
    /// later one if retention has deleted batches since. 0: from the topic's first batch.
    pub fn since(&self) -> PublishTime {
        self.since
    }

    /// Returns whether deliveries of a stream arrive in the order of acceptance. Then a sequence
    /// number that is skipped never arrives, and nothing needs to be buffered.
    pub fn in_order(&self) -> bool {
        self.in_order
    }

    /// Waits for the next item. `None` if the bus was closed or the app removed.
    ///
    /// *Cancel safety*: cancelling the call loses no item.
    ///
    /// # Errors
    /// [`BusError`]. The reader is then exhausted; open another one.
    pub async fn next(&mut self) -> Option<Result<ReaderItem, BusError>> {
        let item = self.items.next().await;
        self.record(item.as_ref());
        item
    }

    /// Returns the next item if one is available without waiting.
    pub fn try_next(&mut self) -> Option<Result<ReaderItem, BusError>> {
        let item = self.items.next().now_or_never().flatten();
        self.record(item.as_ref());
        item
    }

    fn record(&self, item: Option<&Result<ReaderItem, BusError>>) {
        if let Some(Ok(ReaderItem::Delivery(delivery))) = item {
            self.clock.record(delivery.published);
        }
    }
}
