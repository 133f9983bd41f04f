//! The one reader of one app, shared by all its tails.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bus::{
    AppName, Bus, BusError, PublishTime, Reader, ReaderItem, Start,
    notice::{self, Notice},
    reassembly::{EventKind, GapTimeouts, Now, Reassembly},
};
use parking_lot::Mutex;
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    charge::Kept,
    config::Config,
    frame::{Frame, Told},
    history::Shared,
    merge::Merge,
    metrics::{Cause, Metrics, Missing},
    pace::{self, Pace},
    ring::{Bounds, Ring},
};

/// How long a live batch is waited for where deliveries can overtake each other: the most by which a tail may lag behind a lost one.
pub(crate) const HOLD: Duration = Duration::from_secs(1);

/// Items taken from the bus before readers are served: what came while the last ones were served, in one go.
const GATHER_ITEMS: usize = 256;

/// A ring's bytes in so many parts: what is taken in one go is at most one, and does not run through it.
const GATHER_PART: usize = 8;

/// Frames handed to the readers before it is looked again whether they keep up: a small part of a ring.
const POUR_FRAMES: usize = 8;

/// At the end: when nothing has come for so long, nothing that was accepted before is still on its way.
const QUIET: Duration = Duration::from_millis(100);

/// At the end: an app that does not stop printing is read for so long at most.
const LAST_LINES: Duration = Duration::from_secs(1);

/// How long readers are left alone after they were woken, for each of them: a few times what it takes to write to one, so that what comes meanwhile goes into the same
/// write. A hundred readers do not a thousand get twenty-five writes a second each, ten thousand five, rather than one a line.
const REST_A_TAIL: Duration = Duration::from_micros(40);

/// The longest such rest.
const MAX_REST: Duration = Duration::from_millis(200);

/// What an app's ring may keep though all rings together keep too much.
const FAIR_BYTES: usize = 256 * 1024;

/// How often what history no longer reaches is forgotten.
const FORGET_INTERVAL: Duration = Duration::from_secs(60);

/// What tails share.
pub(crate) struct Hub {
    /// Whose lines.
    pub(crate) app: AppName,
    /// The newest of them.
    pub(crate) ring: Ring,
    /// Set when the ring will get no more: tails end behind its last frame.
    pub(crate) done: CancellationToken,
    /// One read-back at a time: a deploy's thousand tails do not read the bus a thousand times at once.
    pub(crate) read_backs: tokio::sync::Mutex<()>,
    /// The last read-back, for those who come next.
    pub(crate) past: Mutex<Option<Arc<Shared>>>,
}

/// Whether a hub is to leave the list though a tail has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Retire {
    /// It is done: tails end.
    Always,
    /// Only where no tail has it.
    IfIdle,
}

/// The hub's task: reads, reassembles, renders, until its last tail has been gone for a while.
pub(crate) struct Reading {
    hub: Arc<Hub>,
    bus: Arc<dyn Bus>,
    reader: Reader,
    reassembly: Reassembly,
    merge: Merge,
    /// Frames that are notices about no stream.
    notices: Vec<Frame>,
    /// Frames that the ring has no room for yet.
    waiting: VecDeque<Frame>,
    /// Readers are not woken before this: the last time is still being written.
    rest_until: Duration,
    tails: watch::Receiver<usize>,
    began: Instant,
    newest: PublishTime,
    pace: Pace,
    forgot: Instant,
    config: Config,
    metrics: Metrics,
}

/// Starts to read an app from now on: what is accepted after this returns is seen.
///
/// # Errors
/// The bus's; [`BusError::UnknownApp`] where there is no such app.
pub(crate) async fn open(
    app: AppName,
    bus: Arc<dyn Bus>,
    config: Config,
    metrics: Metrics,
    kept: Kept,
    tails: watch::Receiver<usize>,
) -> Result<(Arc<Hub>, Reading), BusError> {
    let reader = bus.follow(&app, Start::Now).await?;
    let bounds = Bounds {
        own: config.ring_bytes,
        all: config.rings_bytes,
        fair: FAIR_BYTES.min(config.ring_bytes),
    };
    let hub = Arc::new(Hub {
        ring: Ring::new(reader.since(), bounds, kept),
        app,
        done: CancellationToken::new(),
        read_backs: tokio::sync::Mutex::new(()),
        past: Mutex::default(),
    });
    let reading = Reading {
        hub: Arc::clone(&hub),
        bus,
        reassembly: Reassembly::new(patience(&reader), reader.since(), config.history),
        reader,
        merge: Merge::new(hub.app.clone()),
        notices: Vec::new(),
        waiting: VecDeque::new(),
        rest_until: Duration::ZERO,
        tails,
        began: Instant::now(),
        newest: PublishTime::now(),
        pace: Pace::new(config.max_lag),
        forgot: Instant::now(),
        config,
        metrics,
    };
    Ok((hub, reading))
}

/// How long to wait for what is missing.
pub(crate) fn patience(reader: &Reader) -> GapTimeouts {
    if reader.in_order() {
        GapTimeouts::InOrder
    } else {
        GapTimeouts::Tail { reorder_window: HOLD }
    }
}

impl Reading {
    /// Reads until `shutdown`, the app's removal, or until no tail has been there for the linger.
    ///
    /// `retire` takes the hub out of the list of those that tails can join. Asked to do so only where no tail has it, it may answer no.
    pub(crate) async fn run(mut self, shutdown: CancellationToken, retire: impl Fn(Retire) -> bool) {
        self.metrics.hubs.inc();
        let linger = self.config.linger;
        let idle = idle(self.tails.clone(), linger);
        tokio::pin!(idle);
        loop {
            let due = self.due();
            let holds = !self.pour();
            tokio::select! {
                () = tokio::time::sleep(pace::LOOK), if holds => {}
                item = self.reader.next(), if !holds => match item {
                    Some(Ok(item)) => self.take(item),
                    Some(Err(error)) => {
                        tracing::warn!(app = %self.hub.app, %error, "hub lost the bus, reads on from where it was");
                        self.hub.ring.hear(Some(PublishTime::now().earlier_by(HOLD * 2)));
                        if !self.reopen(&shutdown).await {
                            break;
                        }
                    }
                    None => break,
                },
                () = sleep_until(due) => {}
                () = &mut idle => {
                    if retire(Retire::IfIdle) {
                        // Nobody is there to be shown what still comes.
                        self.close();
                        return;
                    }
                    idle.set(self::idle(self.tails.clone(), linger));
                }
                () = shutdown.cancelled() => break,
            }
            if !holds {
                self.take_what_waits();
            }
            self.serve();
        }
        retire(Retire::Always);
        // What was accepted before the end is shown before the end; what goes on being accepted is not waited for.
        let limit = Instant::now() + LAST_LINES;
        while let Ok(Some(Ok(item))) =
            tokio::time::timeout_at(limit.min(Instant::now() + QUIET), self.reader.next()).await
        {
            self.take(item);
            self.serve();
        }
        self.settle();
        let frames = self.merge.take_all();
        self.show(frames);
        self.hub.ring.extend(self.waiting.drain(..));
        self.close();
    }

    /// Hands frames to the readers as far as there is room for them. False where there is none, for now, for what waits or what would come.
    fn pour(&mut self) -> bool {
        loop {
            if *self.tails.borrow() > 0 && self.pace.holds(&self.hub.ring, Instant::now()) {
                return false;
            }
            if self.waiting.is_empty() {
                return true;
            }
            let some = self.waiting.len().min(POUR_FRAMES);
            self.hub.ring.extend(self.waiting.drain(..some));
        }
    }

    /// When something is to be done though nothing comes.
    fn due(&self) -> Option<Instant> {
        let mut show = self.merge.deadline();
        if !self.notices.is_empty() {
            show = Some(Duration::ZERO);
        }
        let show = show.map(|show| show.max(self.rest_until));
        let due = [self.reassembly.deadline(), show].into_iter().flatten().min();
        due.map(|elapsed| self.began + elapsed)
    }

    fn close(&self) {
        self.hub.done.cancel();
        self.metrics.hubs.dec();
        tracing::debug!(app = %self.hub.app, "hub closed");
    }

    fn take_what_waits(&mut self) {
        let mut bytes = 0;
        for _ in 0..GATHER_ITEMS {
            if bytes > self.config.ring_bytes / GATHER_PART {
                break;
            }
            match self.reader.try_next() {
                Some(Ok(item)) => {
                    if let ReaderItem::Delivery(delivery) = &item {
                        bytes += delivery.batch.data().len();
                    }
                    self.take(item);
                }
                // The error comes again where it can be waited out.
                Some(Err(_)) | None => break,
            }
        }
    }

    fn take(&mut self, item: ReaderItem) {
        let now = self.now();
        match item {
            ReaderItem::Delivery(delivery) => {
                self.newest = self.newest.max(delivery.published);
                self.pace.saw(now.bus.since(delivery.published));
                self.reassembly.push(delivery, now);
            }
            ReaderItem::CaughtUp => {
                self.reassembly.caught_up(now);
                self.hub.ring.hear(None);
            }
            ReaderItem::Unreadable(unreadable) => {
                self.metrics.unreadable_batches.inc();
                self.say(notice::unreadable(&unreadable));
            }
            ReaderItem::Interrupted { from, to } => {
                self.metrics.interruptions.inc();
                self.hub.ring.is_broken_before(to);
                self.say(notice::interrupted(from, to));
            }
        }
    }

    fn say(&mut self, notice: Notice) {
        self.notices.push(Frame::told(&self.hub.app, Told::now(notice)));
    }

    /// Hands what is settled, and has found its place, to the tails.
    fn serve(&mut self) {
        self.settle();
        let now = self.began.elapsed();
        if now >= self.rest_until {
            let frames = self.merge.take(now);
            self.show(frames);
        }
        if self.forgot.elapsed() > FORGET_INTERVAL {
            self.forget();
        }
    }

    fn settle(&mut self) {
        let now = self.now();
        self.reassembly.declare_due(now);
        while let Some(event) = self.reassembly.next_event() {
            self.count(&event.kind);
            self.merge.push(event, now);
        }
    }

    fn show(&mut self, merged: Vec<Frame>) {
        let mut frames = std::mem::take(&mut self.notices);
        frames.extend(merged);
        if frames.is_empty() {
            return;
        }
        self.waiting.extend(frames);
        self.pour();
        let tails = u32::try_from(*self.tails.borrow()).unwrap_or(u32::MAX);
        self.rest_until = self.began.elapsed() + REST_A_TAIL.saturating_mul(tails).min(MAX_REST);
    }

    fn forget(&mut self) {
        self.forgot = Instant::now();
        let now = PublishTime::now();
        self.reassembly.forget(now);
        self.hub.ring.forget(now);
        self.merge
            .forget(bus::Timestamp::from(now.earlier_by(self.config.history)));
        // A read-back that the ring no longer joins is of no use to anybody.
        let mut past = self.hub.past.lock();
        past.take_if(|past| self.hub.ring.since(past.place).is_none());
    }

    fn count(&self, what: &EventKind) {
        match what {
            EventKind::Lines { lines, late, .. } => {
                self.metrics.lines.inc_by(*lines);
                self.metrics.late_lines.inc_by(if *late { *lines } else { 0 });
            }
            EventKind::Gap { lines, gap: loss } => {
                let cause = if loss.is_some() {
                    Cause::collector
                } else {
                    Cause::undelivered
                };
                self.metrics
                    .missing_lines
                    .get_or_create(&Missing { cause })
                    .inc_by(*lines);
            }
            EventKind::End => {}
        }
    }

    /// Opens the app again from a little before the newest batch seen; reassembly trims the repeats. False where there is nothing to go on with.
    async fn reopen(&mut self, shutdown: &CancellationToken) -> bool {
        let mut wait = Duration::from_millis(100);
        loop {
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = shutdown.cancelled() => return false,
            }
            wait = (wait * 2).min(Duration::from_secs(5));
            let start = Start::At(self.newest.earlier_by(HOLD * 2));
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
        Now {
            elapsed: self.began.elapsed(),
            bus: PublishTime::now(),
        }
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// Returns when there has been no tail for this long.
async fn idle(mut tails: watch::Receiver<usize>, linger: Duration) {
    // Either wait fails only when the counter is gone, and with it every tail.
    while tails.wait_for(|count| *count == 0).await.is_ok() {
        let came = tokio::time::timeout(linger, tails.wait_for(|count| *count > 0)).await;
        if !matches!(came, Ok(Ok(_))) {
            return;
        }
    }
}
