//! One drain: its subscription, its connections one after the other, its pauses.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use bus::{Bus, BusError, PublishTime};
use rand::RngExt;
use registry::{Drain, Protocol, Registry, Target};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    config::Config,
    notifier::{Herald, Kind},
    queue::Windows,
    reader::Feed,
    render::Style,
    stats::Counts,
    transport::connect::Dialler,
    transport::error::Failure,
    transport::https::Frames,
    transport::outcome::End,
    transport::tcp,
    transport::udp,
};

/// The first pause at most. It doubles with each try.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// A connection that lived so long was a good one.
const GOOD_AFTER: Duration = Duration::from_secs(30);

/// What a drain over HTTP or UDP holds at most: what it sends is settled at once.
const SMALL_WINDOW_BYTES: usize = 4 << 20;

/// What all drains of a process share.
pub(crate) struct House {
    pub(crate) config: Config,
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) registry: Arc<dyn Registry>,
    pub(crate) dialler: Dialler,
    pub(crate) windows: Arc<Windows>,
}

/// Sends a drain's lines until told to stop. What its receiver has for sure is acknowledged by then.
pub(crate) async fn run(house: Arc<House>, drain: Drain, counts: Arc<Counts>, stop: CancellationToken) {
    let target = match drain.target() {
        Ok(target) => target,
        Err(why) => {
            tracing::error!(drain = drain.id, app = drain.app, why, "a drain cannot be used");
            counts.failed(why);
            return stop.cancelled().await;
        }
    };
    let config = &house.config;
    let herald = Herald::new(
        Arc::clone(&house.bus),
        &drain,
        target.shown(),
        &config.holder,
        config.notice_grain,
    );
    let Some(herald) = herald else {
        counts.failed("its app has no name that the bus knows");
        return stop.cancelled().await;
    };
    let mut sender = Sender {
        pauses: Pauses::new(config.max_backoff),
        frames: Frames::new(&target, &drain.token),
        house: &house,
        drain: &drain,
        target,
        counts,
        herald,
    };
    let mut lost = sender.lost_before().await;
    while !stop.is_cancelled() {
        match sender.open(lost).await {
            Ok(mut feed) => {
                lost = None;
                if sender.send(&mut feed, &stop).await {
                    return;
                }
                // What a frame holds is delivered again.
                sender.frames = Frames::new(&sender.target, &drain.token);
            }
            Err(error) => {
                tracing::warn!(drain = drain.id, app = drain.app, %error, "a drain's subscription cannot be read");
                sender.counts.failed("the bus is not available");
            }
        }
        sender.pauses.pause(None, &stop).await;
    }
}

struct Sender<'a> {
    house: &'a House,
    drain: &'a Drain,
    target: Target,
    counts: Arc<Counts>,
    herald: Herald,
    frames: Frames,
    pauses: Pauses,
}

impl Sender<'_> {
    /// What the bus no longer has: from when the receiver last had everything, where that lies further back than the bus keeps.
    async fn lost_before(&self) -> Option<(PublishTime, PublishTime)> {
        let delivered = match self.house.registry.last_delivered(self.drain.id).await {
            Ok(delivered) => delivered?,
            Err(error) => {
                tracing::warn!(drain = self.drain.id, %error, "when a drain last had everything is not known");
                return None;
            }
        };
        let since = delivered.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        let (from, to) = (
            PublishTime(0).later_by(since),
            PublishTime::now().earlier_by(self.house.config.retention),
        );
        (from < to).then_some((from, to))
    }

    /// Its subscription, made where there is none.
    async fn open(&self, lost: Option<(PublishTime, PublishTime)>) -> Result<Feed, BusError> {
        let (bus, name) = (&self.house.bus, self.drain.subscription());
        let app = self.drain.app.parse();
        let app = app.map_err(|_| BusError::Refused("no name of an app".to_owned()))?;
        let reader = match bus.subscribe(&app, &name).await {
            // A drain names its app: it exists.
            Err(BusError::UnknownApp(_)) => {
                bus.create(&app).await?;
                bus.subscribe(&app, &name).await?
            }
            opened => opened?,
        };
        let config = &self.house.config;
        let window = match self.target.protocol {
            Protocol::Tcp | Protocol::Tls => config.window_bytes,
            _ => config.window_bytes.min(SMALL_WINDOW_BYTES),
        };
        Ok(Feed::new(
            reader,
            self.drain,
            Style::of(&self.target),
            config.retention,
            (window, Arc::clone(&self.house.windows)),
            Arc::clone(&self.counts),
            lost,
        ))
    }

    /// Sends until told to stop, `true`, or until the bus fails.
    async fn send(&mut self, feed: &mut Feed, stop: &CancellationToken) -> bool {
        loop {
            // Nobody is dialled for nothing.
            while !feed.queue.has_more() && !self.frames.are_open() {
                tokio::select! {
                    filled = feed.fill() => match filled {
                        Some(Ok(())) => {}
                        Some(Err(error)) => return self.bus_failed(Some(&error)),
                        None => return self.bus_failed(None),
                    },
                    () = stop.cancelled() => return true,
                }
            }
            let begun = Instant::now();
            let before = self.counts.report().delivered;
            let ended = tokio::select! {
                ended = self.connect_and_run(feed, stop) => ended,
                () = async { stop.cancelled().await; sleep(LAST_CONNECT).await } => End::Stopped,
            };
            let good = begun.elapsed() >= GOOD_AFTER || self.counts.report().delivered > before;
            if good {
                self.pauses.reset();
            }
            if !self.target.protocol.is_web() {
                // What was sent and is not sure is to be sent, also where nothing else is.
                feed.queue.rewind();
            }
            match ended {
                End::Stopped => return true,
                End::Renewed => {}
                End::Bus(error) => return self.bus_failed(error.as_ref()),
                End::Failed(failure) => {
                    self.failed(&failure, good);
                    if self.house.windows.are_scarce() {
                        // The bus keeps it as well, and hands it over again.
                        return false;
                    }
                    let wanted = failure
                        .retry_after()
                        .map(|wait| wait.min(self.house.config.max_retry_after));
                    self.pauses.pause(wanted, stop).await;
                    if stop.is_cancelled() {
                        return true;
                    }
                }
            }
        }
    }

    async fn connect_and_run(&mut self, feed: &mut Feed, stop: &CancellationToken) -> End {
        let (dialler, age) = (&self.house.dialler, jittered(self.house.config.connection_age));
        if self.target.protocol == Protocol::Udp {
            let opened = async { udp::open(&dialler.names.of(&self.target).await?).await };
            let socket = match opened.await {
                Ok(socket) => socket,
                Err(failure) => return End::Failed(failure),
            };
            self.counts.connected();
            return udp::run(feed, &socket, &self.counts, Instant::now() + age, stop).await;
        }
        let dialled = tokio::select! {
            dialled = dialler.dial(&self.target) => dialled,
            () = stop.cancelled() => return End::Stopped,
        };
        let connection = match dialled {
            Ok(connection) => connection,
            Err(failure) => return End::Failed(failure),
        };
        self.counts.connected();
        if self.target.protocol.is_web() {
            let herald = &self.herald;
            let refused = |refusal: crate::transport::https::Refusal| {
                // A notice that was refused makes no other.
                if refusal.lines > 0 {
                    herald.tell(Kind::Refused, refusal.lines, format!("it answers {}", refusal.status));
                }
            };
            let waits = (age, self.house.config.answer_wait);
            self.frames
                .run(feed, connection, &self.counts, waits, stop, refused)
                .await
        } else {
            tcp::run(feed, connection, &self.counts, age, stop).await
        }
    }

    fn failed(&self, failure: &Failure, was_good: bool) {
        let why = failure.to_string();
        tracing::info!(
            drain = self.drain.id,
            app = self.drain.app,
            to = self.target.shown(),
            why,
            "a drain fails"
        );
        self.counts.failed(&why);
        // Receivers close what is not used for a while: what cannot be made anew is worth a word.
        if was_good && matches!(failure, Failure::Closed | Failure::Broke(_)) {
            return;
        }
        let kind = if failure.is_identity() {
            Kind::Identity
        } else {
            Kind::Failing
        };
        self.herald.tell(kind, 0, why);
    }

    fn bus_failed(&self, error: Option<&BusError>) -> bool {
        match error {
            Some(error) => tracing::warn!(drain = self.drain.id, %error, "a drain's subscription failed"),
            None => tracing::info!(drain = self.drain.id, "a drain's subscription ended"),
        }
        false
    }
}

/// How long what is under way has once we are told to stop: longer than a connection's own end.
const LAST_CONNECT: Duration = Duration::from_secs(8);

/// Pauses between tries: full jitter, so that who failed together does not come again together.
struct Pauses {
    next: Duration,
    most: Duration,
}

impl Pauses {
    fn new(most: Duration) -> Self {
        Self {
            next: FIRST_PAUSE.min(most),
            most,
        }
    }

    fn reset(&mut self) {
        self.next = FIRST_PAUSE.min(self.most);
    }

    /// Waits, at least as long as is wanted, or until told to stop.
    async fn pause(&mut self, wanted: Option<Duration>, stop: &CancellationToken) {
        let pause = rand::rng().random_range(Duration::ZERO..=self.next);
        self.next = (self.next * 2).min(self.most);
        tokio::select! {
            () = sleep(pause.max(wanted.unwrap_or_default())) => {}
            () = stop.cancelled() => {}
        }
    }
}

/// A tenth more or less: those that began together do not end together.
fn jittered(time: Duration) -> Duration {
    time.mul_f64(rand::rng().random_range(0.9..1.1))
}
