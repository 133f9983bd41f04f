//! The one reader of one app, shared by all its tails.

use std::{sync::Arc, time::Duration};

use bus::{
    AppName, Bus, BusError, Item, Published, Reader, Start, Timestamp,
    reassembly::{Moment, Patience, Reassembly, What},
};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    config::Config,
    frame::Frame,
    gather::{Gather, notice_frame},
    metrics::{Cause, Metrics, Missing},
    notice,
    ring::Ring,
};

/// How long a live batch is waited for where deliveries can overtake each other: the most by which a tail may lag behind a lost one.
pub(crate) const HOLD: Duration = Duration::from_secs(1);

/// Items taken from the bus before readers are served: what came while the last ones were served, in one go.
const GATHER_ITEMS: usize = 256;

/// At the end: when nothing has come for so long, nothing that was accepted before is still on its way.
const QUIET: Duration = Duration::from_millis(100);

/// At the end: an app that does not stop printing is read for so long at most.
const LAST_LINES: Duration = Duration::from_secs(1);

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
    gather: Gather,
    /// Frames that are notices about no stream.
    notices: Vec<Frame>,
    began: Instant,
    newest: Published,
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
) -> Result<(Arc<Hub>, Reading), BusError> {
    let reader = bus.follow(&app, Start::Now).await?;
    let hub = Arc::new(Hub {
        app,
        ring: Ring::new(config.ring_bytes),
        done: CancellationToken::new(),
        read_backs: tokio::sync::Mutex::new(()),
    });
    let reading = Reading {
        hub: Arc::clone(&hub),
        bus,
        reassembly: Reassembly::new(patience(&reader), reader.since(), config.history),
        reader,
        gather: Gather::default(),
        notices: Vec::new(),
        began: Instant::now(),
        newest: Published::now(),
        forgot: Instant::now(),
        config,
        metrics,
    };
    Ok((hub, reading))
}

/// How long to wait for what is missing.
pub(crate) fn patience(reader: &Reader) -> Patience {
    if reader.in_order() {
        Patience::InOrder
    } else {
        Patience::Tail { hold: HOLD }
    }
}

impl Reading {
    /// Reads until `shutdown`, the app's removal, or until no tail has been there for the linger.
    ///
    /// `retire` takes the hub out of the list of those that tails can join. Asked to do so only where no tail has it, it may answer no.
    pub(crate) async fn run(
        mut self,
        tails: watch::Receiver<usize>,
        shutdown: CancellationToken,
        retire: impl Fn(Retire) -> bool,
    ) {
        self.metrics.hubs.inc();
        let linger = self.config.linger;
        let idle = idle(tails.clone(), linger);
        tokio::pin!(idle);
        loop {
            let due = self.reassembly.deadline().map(|elapsed| self.began + elapsed);
            tokio::select! {
                item = self.reader.next() => match item {
                    Some(Ok(item)) => self.take(item),
                    Some(Err(error)) => {
                        tracing::warn!(app = %self.hub.app, %error, "hub lost the bus, reads on from where it was");
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
                    idle.set(self::idle(tails.clone(), linger));
                }
                () = shutdown.cancelled() => break,
            }
            self.take_what_waits();
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
        self.serve();
        self.close();
    }

    fn close(&self) {
        self.hub.done.cancel();
        self.metrics.hubs.dec();
        tracing::debug!(app = %self.hub.app, "hub closed");
    }

    fn take_what_waits(&mut self) {
        for _ in 0..GATHER_ITEMS {
            match self.reader.try_next() {
                Some(Ok(item)) => self.take(item),
                // The error comes again where it can be waited out.
                Some(Err(_)) | None => break,
            }
        }
    }

    fn take(&mut self, item: Item) {
        let now = self.now();
        match item {
            Item::Delivery(delivery) => {
                self.newest = self.newest.max(delivery.published);
                self.reassembly.push(delivery, now);
            }
            Item::CaughtUp => self.reassembly.caught_up(now),
            Item::Unreadable(unreadable) => {
                self.metrics.unreadable_batches.inc();
                self.say(&notice::unreadable(&unreadable));
            }
            Item::Break { from, to } => {
                self.metrics.interruptions.inc();
                self.say(&notice::interrupted(from, to));
            }
        }
    }

    fn say(&mut self, text: &str) {
        self.notices.push(notice_frame(self.hub.app.as_str(), text));
    }

    /// Hands what is settled to the tails.
    fn serve(&mut self) {
        let now = self.now();
        self.reassembly.declare_due(now);
        while let Some(event) = self.reassembly.next_event() {
            self.count(&event.what);
            self.gather.push(event);
        }
        if !self.gather.is_empty() || !self.notices.is_empty() {
            let mut frames = std::mem::take(&mut self.notices);
            frames.extend(self.gather.render());
            self.hub.ring.extend(frames);
        }
        if self.forgot.elapsed() > FORGET_INTERVAL {
            self.forgot = Instant::now();
            self.reassembly.forget(now.bus);
            let reach = i64::try_from(self.config.history.as_nanos()).unwrap_or(i64::MAX);
            self.gather.forget(Timestamp(Timestamp::now().0.saturating_sub(reach)));
        }
    }

    fn count(&self, what: &What) {
        match what {
            What::Lines { lines, late, .. } => {
                self.metrics.lines.inc_by(*lines);
                self.metrics.late_lines.inc_by(if *late { *lines } else { 0 });
            }
            What::Gap { lines, loss } => {
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
            What::End => {}
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

    fn now(&self) -> Moment {
        Moment {
            elapsed: self.began.elapsed(),
            bus: Published::now(),
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
