//! The task that reads one app from the bus for all its tails.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use bus::{
    AppName, Bus, BusError, PublishTime, Reader, ReaderItem, Start,
    notice::{self, Notice},
    reassembly::{EventKind, GapTimeouts, Now, REORDER_WINDOW, Reassembly},
};
use futures::future::OptionFuture;
use system::{clock, random::random};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    config::Config,
    frame::{Frame, memory::MemoryBudget},
    hub::{
        app_hub::Hub,
        backpressure::{self, Backpressure},
        merge::Merge,
        ring::{Ring, RingLimits},
    },
    line::NoticeLine,
    metrics::{Metrics, Reason},
};

/// Items read from the bus in one pass before tails are served.
const BATCH_ITEMS: usize = 256;

/// One pass reads at most this fraction (1/n) of the ring's size.
const BATCH_RING_PART: usize = 8;

/// Frames appended to the ring between two backpressure checks; a small part of a ring.
const APPEND_FRAMES: usize = 8;

/// During shutdown, the bus counts as drained when nothing arrives for this long.
const SHUTDOWN_IDLE: Duration = Duration::from_millis(100);

/// During shutdown, limit on reading an app that keeps logging.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(1);

/// Pause between wake-ups, per tail: a few times the cost of one write, so that lines that arrive
/// meanwhile share a write. A hundred tails are not woken a thousand times a second; ten thousand
/// get five writes a second each instead of one per line.
const WAKE_PAUSE_PER_TAIL: Duration = Duration::from_micros(40);

/// Longest pause between wake-ups.
const MAX_WAKE_PAUSE: Duration = Duration::from_millis(200);

/// Bytes that each ring may keep even if all rings together exceed their limit.
const FAIR_BYTES: usize = 256 * 1024;

/// Interval at which state older than the history is dropped.
const FORGET_INTERVAL: Duration = Duration::from_secs(60);

/// Longest first delay between attempts to follow the app again; it doubles with every attempt.
const FIRST_RETRY_DELAY: Duration = Duration::from_millis(100);

/// Longest delay between attempts to follow the app again.
const MAX_RETRY_DELAY: Duration = Duration::from_secs(5);

/// When a hub may be removed from the list of hubs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Retire {
    /// Even if it has tails: it reads no more, and they end.
    Always,
    /// Only if it has no tails.
    IfIdle,
}

/// Reads, reassembles and merges one app until its last tail has been gone for a while.
pub(crate) struct HubReader {
    hub: Arc<Hub>,
    bus: Arc<dyn Bus>,
    reader: Reader,
    reassembly: Reassembly,
    merge: Merge,
    /// Notices that concern no stream, to be sent with the next lines.
    notices: Vec<Frame>,
    /// Frames held back by backpressure.
    pending: VecDeque<Frame>,
    /// Tails are not woken before this time after `started`.
    next_wake: Duration,
    tails: watch::Receiver<usize>,
    started: Instant,
    /// Publish time of the newest batch received.
    newest: PublishTime,
    backpressure: Backpressure,
    last_forget: Instant,
    config: Config,
    metrics: Metrics,
}

/// Follows an app from now on: every batch published after this returns is delivered.
///
/// # Errors
/// [`BusError::UnknownApp`] if the app does not exist, or another error of the bus.
pub(crate) async fn open(
    app: AppName,
    bus: Arc<dyn Bus>,
    config: Config,
    metrics: Metrics,
    memory: MemoryBudget,
    tails: watch::Receiver<usize>,
) -> Result<(Arc<Hub>, HubReader), BusError> {
    let reader = bus.follow(&app, Start::Now).await?;
    let limits = RingLimits {
        own: config.ring_bytes,
        total: config.total_ring_bytes,
        fair: FAIR_BYTES.min(config.ring_bytes),
    };
    let hub = Arc::new(Hub::new(
        app,
        Ring::new(reader.since(), reader.in_order(), limits, memory),
    ));
    let task = HubReader {
        hub: Arc::clone(&hub),
        bus,
        reassembly: Reassembly::new(GapTimeouts::for_tail(&reader), reader.since(), config.history),
        newest: reader.since(),
        reader,
        merge: Merge::new(hub.app.clone()),
        notices: Vec::new(),
        pending: VecDeque::new(),
        next_wake: Duration::ZERO,
        tails,
        started: clock::steady(),
        backpressure: Backpressure::new(config.max_lag),
        last_forget: clock::steady(),
        config,
        metrics,
    };
    Ok((hub, task))
}

impl HubReader {
    /// Reads until `shutdown`, the removal of the app, or until the hub has had no tail for
    /// [`Config::idle_subscription_timeout`].
    ///
    /// `retire` removes the hub from the list that tails join. With [`Retire::IfIdle`] it may
    /// refuse.
    pub(crate) async fn run(mut self, shutdown: CancellationToken, retire: impl Fn(Retire) -> bool) {
        self.metrics.active_apps.inc();
        let timeout = self.config.idle_subscription_timeout;
        let idle = idle(self.tails.clone(), timeout);
        tokio::pin!(idle);
        loop {
            let deadline = OptionFuture::from(self.deadline().map(tokio::time::sleep_until));
            let paused = !self.append_pending();
            tokio::select! {
                () = tokio::time::sleep(backpressure::CHECK_INTERVAL), if paused => {}
                item = self.reader.next(), if !paused => match item {
                    Some(Ok(item)) => self.handle(item),
                    Some(Err(error)) => {
                        tracing::warn!(app = %self.hub.app, %error, "subscription failed, reopening");
                        self.hub.ring.set_disconnected(Some(self.newest.earlier_by(REORDER_WINDOW * 2)));
                        if !self.reopen(&shutdown).await {
                            break;
                        }
                    }
                    None => break,
                },
                Some(()) = deadline => {}
                () = &mut idle => {
                    if retire(Retire::IfIdle) {
                        self.close();
                        return;
                    }
                    idle.set(self::idle(self.tails.clone(), timeout));
                }
                () = shutdown.cancelled() => break,
            }
            if !paused {
                self.read_available();
            }
            self.serve();
        }
        retire(Retire::Always);
        self.drain().await;
        self.close();
    }

    /// Delivers what was published before the end, and then everything that is still buffered.
    async fn drain(&mut self) {
        let limit = clock::steady() + SHUTDOWN_LIMIT;
        while let Ok(Some(Ok(item))) =
            tokio::time::timeout_at(limit.min(clock::steady() + SHUTDOWN_IDLE), self.reader.next()).await
        {
            self.handle(item);
            self.serve();
        }
        self.merge_events();
        let frames = self.merge.release_all();
        self.enqueue(frames);
        let settled = self.settled_after(self.pending.len());
        self.hub.ring.extend(self.pending.drain(..), settled);
    }

    /// Appends pending frames to the ring as far as backpressure allows. Returns false while
    /// paused.
    fn append_pending(&mut self) -> bool {
        loop {
            if *self.tails.borrow() > 0 && self.backpressure.is_paused(&self.hub.ring, clock::steady()) {
                return false;
            }
            if self.pending.is_empty() {
                return true;
            }
            let count = self.pending.len().min(APPEND_FRAMES);
            let settled = self.settled_after(count);
            self.hub.ring.extend(self.pending.drain(..count), settled);
        }
    }

    /// Returns when work is due even if nothing arrives.
    fn deadline(&self) -> Option<Instant> {
        let mut output = self.merge.deadline();
        if !self.notices.is_empty() {
            output = Some(Duration::ZERO);
        }
        let output = output.map(|due| due.max(self.next_wake));
        let due = [self.reassembly.deadline(), output].into_iter().flatten().min();
        due.map(|elapsed| self.started + elapsed)
    }

    fn close(&self) {
        self.hub.done.cancel();
        self.metrics.active_apps.dec();
        tracing::debug!(app = %self.hub.app, "hub closed");
    }

    /// Handles what the bus has already delivered, without waiting.
    fn read_available(&mut self) {
        let mut bytes = 0;
        for _ in 0..BATCH_ITEMS {
            if bytes > self.config.ring_bytes / BATCH_RING_PART {
                break;
            }
            match self.reader.try_next() {
                Some(Ok(item)) => {
                    if let ReaderItem::Delivery(delivery) = &item {
                        bytes += delivery.batch.data().len();
                    }
                    self.handle(item);
                }
                // `run` gets the error again, where it can wait.
                Some(Err(_)) | None => break,
            }
        }
    }

    fn handle(&mut self, item: ReaderItem) {
        let now = self.now();
        match item {
            ReaderItem::Delivery(delivery) => {
                self.newest = self.newest.max(delivery.published);
                self.backpressure.record_age(now.bus.since(delivery.published));
                self.reassembly.push(delivery, now);
            }
            ReaderItem::CaughtUp => {
                self.reassembly.caught_up(now);
                self.hub.ring.set_disconnected(None);
            }
            // A hub begins with new lines.
            ReaderItem::HistoryCut { .. } => {}
            ReaderItem::Unreadable(unreadable) => {
                self.metrics.count_gap(Reason::Unreadable, 0);
                self.add_notice(notice::unreadable(&unreadable));
            }
            ReaderItem::Interrupted { from, to } => {
                self.metrics.subscription_resets.inc();
                self.metrics.count_gap(Reason::Interrupted, 0);
                self.hub.ring.set_incomplete_before(to);
                self.add_notice(notice::interrupted(from, to));
            }
        }
    }

    fn add_notice(&mut self, notice: Notice) {
        self.notices.push(Frame::notice(&self.hub.app, NoticeLine::now(notice)));
    }

    /// Passes lines whose reorder window is over to the tails.
    fn serve(&mut self) {
        self.merge_events();
        let now = clock::since(self.started);
        if now >= self.next_wake {
            let frames = self.merge.release(now);
            self.enqueue(frames);
        }
        if clock::since(self.last_forget) > FORGET_INTERVAL {
            self.forget();
        }
    }

    /// Returns before which publish time everything is in the ring once these many pending frames
    /// are. `None` if lines are held elsewhere, or where deliveries are not in order.
    fn settled_after(&self, frames: usize) -> Option<PublishTime> {
        let is_held = frames < self.pending.len() || self.merge.deadline().is_some();
        (self.reader.in_order() && !is_held).then_some(PublishTime(self.newest.0 + 1))
    }

    fn merge_events(&mut self) {
        let now = self.now();
        self.reassembly.declare_due(now);
        while let Some(event) = self.reassembly.next_event() {
            self.count(&event.kind);
            self.merge.push(event, now);
        }
    }

    fn enqueue(&mut self, merged: Vec<Frame>) {
        let mut frames = std::mem::take(&mut self.notices);
        frames.extend(merged);
        if frames.is_empty() {
            return;
        }
        self.pending.extend(frames);
        self.append_pending();
        let tails = u32::try_from(*self.tails.borrow()).unwrap_or(u32::MAX);
        self.next_wake = clock::since(self.started) + WAKE_PAUSE_PER_TAIL.saturating_mul(tails).min(MAX_WAKE_PAUSE);
    }

    fn forget(&mut self) {
        self.last_forget = clock::steady();
        let now = self.now().bus;
        self.reassembly.forget(now);
        self.hub.ring.forget();
        self.merge
            .forget(bus::Timestamp::from(now.earlier_by(self.config.history)));
        // Cached history is useless once the ring no longer continues it.
        let mut cached = self.hub.cached_history.lock();
        cached.take_if(|cached| self.hub.ring.since(cached.position).is_none());
    }

    fn count(&self, kind: &EventKind) {
        match kind {
            EventKind::Lines { lines, late, .. } => {
                self.metrics.lines.inc_by(*lines);
                self.metrics.late_lines.inc_by(if *late { *lines } else { 0 });
            }
            EventKind::Gap { lines, gap } => self.metrics.count_gap(Reason::of(gap.as_ref()), *lines),
            EventKind::End => {}
        }
    }

    /// Follows the app again from shortly before the newest batch; reassembly drops the repeats.
    /// Returns false on shutdown or a permanent error.
    async fn reopen(&mut self, shutdown: &CancellationToken) -> bool {
        let mut delays = retry_delays();
        loop {
            tokio::select! {
                () = tokio::time::sleep(delays.next().unwrap_or(MAX_RETRY_DELAY)) => {}
                () = shutdown.cancelled() => return false,
            }
            let start = Start::At(self.newest.earlier_by(REORDER_WINDOW * 2));
            match self.bus.follow(&self.hub.app, start).await {
                Ok(reader) => {
                    self.reader = reader;
                    return true;
                }
                Err(error) if error.is_transient() => {}
                Err(_) => return false,
            }
        }
    }

    fn now(&self) -> Now {
        let ring = &self.hub.ring;
        ring.record_time(self.reader.now());
        Now {
            elapsed: clock::since(self.started),
            bus: ring.now(),
        }
    }
}

/// Returns the delays between attempts to follow the app again: exponential backoff with jitter, so
/// that the hubs do not reopen together. The lower half of a delay is fixed, the upper half random.
fn retry_delays() -> ExponentialBackoff {
    ExponentialBuilder::new()
        .with_min_delay(FIRST_RETRY_DELAY / 2)
        .with_max_delay(MAX_RETRY_DELAY / 2)
        .with_jitter()
        .with_jitter_seed(random())
        .without_max_times()
        .build()
}

/// Returns once there has been no tail for this long.
async fn idle(mut tails: watch::Receiver<usize>, timeout: Duration) {
    // Both waits fail only once the counter is gone, and with it every tail.
    while tails.wait_for(|count| *count == 0).await.is_ok() {
        let joined = tokio::time::timeout(timeout, tails.wait_for(|count| *count > 0)).await;
        if !matches!(joined, Ok(Ok(_))) {
            return;
        }
    }
}
