//! A stream's way to the bus: one batch in flight, the next gathers meanwhile, in memory or, when the bus is away, on disk.

use std::{collections::VecDeque, future, io, sync::Arc, time::Duration};

use bus::{AppName, Batch, BusError, Content, Gap, GapReason, StreamId};
use futures::{
    FutureExt,
    future::{BoxFuture, OptionFuture},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep, sleep_until, timeout},
};

use crate::{
    anchor::Mark,
    instance::InstanceKey,
    metrics::Metrics,
    publish::{
        checkpoint::Record,
        context::Way,
        entry::Step,
        gap::told_lost,
        spool::{Backlog, Last},
    },
    retry::Backoff,
};

/// The first wait after the bus refused a batch for now: about what a retry on the way costs.
const RETRY_FIRST: Duration = Duration::from_millis(50);

/// The longest: a bus that comes back is noticed within this.
const RETRY_MOST: Duration = Duration::from_secs(5);

/// What the bus has not accepted within this goes to disk: a killed collector then has it, whatever the node rotates away.
pub const SPOOL_AFTER: Duration = Duration::from_secs(1);

/// A disk that refused is tried again after this.
const SPOOL_AGAIN: Duration = Duration::from_secs(5);

/// A stream's way to the bus.
///
/// *Order*: a batch is handed over once the one before was accepted; what is on disk goes before what is in memory. *Bound*: none of its own in memory: see
/// [`queued_bytes`](Self::queued_bytes) and [`spill`](Self::spill); on disk the spool's.
pub struct Outlet {
    way: Way,
    key: InstanceKey,
    record: Record,
    backlog: Backlog,
    queue: VecDeque<Step>,
    /// Of the queue and of what is in flight from it.
    queued_bytes: usize,
    flight: Flight,
    /// Since when the bus has not accepted what it was handed.
    owed_since: Option<Instant>,
    backoff: Backoff,
    /// The last attempt was refused for now.
    refused: bool,
    no_spill_before: Option<Instant>,
}

enum Flight {
    /// Nothing is to be done.
    Idle,
    /// It waits for its turn.
    Turn(BoxFuture<'static, Option<OwnedSemaphorePermit>>),
    /// The bus has it, and has not answered.
    Publishing(Publishing),
}

struct Publishing {
    step: Step,
    on_disk: bool,
    began: Instant,
    answer: BoxFuture<'static, Result<(), BusError>>,
}

enum Landed {
    Turn(Option<OwnedSemaphorePermit>),
    Answer(Result<(), BusError>),
}

impl Outlet {
    /// Of an instance whose record this is. What a collector before it left on disk goes first.
    pub fn new(way: Way, key: InstanceKey, record: Record) -> Self {
        let mut outlet = Self {
            backlog: way.spool.backlog(&key, &record),
            way,
            key,
            record,
            queue: VecDeque::new(),
            queued_bytes: 0,
            flight: Flight::Idle,
            owed_since: None,
            backoff: Backoff::new(RETRY_FIRST, RETRY_MOST),
            refused: false,
            no_spill_before: None,
        };
        outlet.begin_next();
        outlet
    }

    /// Where ends what is on disk.
    pub fn spooled(&self) -> Last {
        self.backlog.last()
    }

    /// Puts a step behind the others, and begins with it where there are none.
    pub fn push(&mut self, step: Step) {
        let is_next_on_disk = self.queue.is_empty() && !self.backlog.is_empty();
        if !(is_next_on_disk && self.backlog.append(&step)) {
            self.queued_bytes += step.data().len();
            self.queue.push_back(step);
        }
        self.begin_next();
    }

    /// Whether there is nothing to wait for.
    pub fn is_idle(&self) -> bool {
        matches!(self.flight, Flight::Idle)
    }

    /// Whether batches go to disk: those before them are there.
    pub fn is_spooling(&self) -> bool {
        !self.backlog.is_empty()
    }

    /// Whether the bus refuses for now, and everything is on disk.
    pub fn is_kept(&self) -> bool {
        self.refused && self.is_spooling() && self.queued_bytes == 0 && self.queue.is_empty()
    }

    /// Bytes in memory that were pushed and not accepted.
    pub fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    /// The seq up to which the bus has this stream's lines, or the disk for it. `None`: another stream's batches are still on their way.
    pub fn accepted(&self, stream: &StreamId) -> Option<u64> {
        let seq_end = |mark: Option<Mark>| mark.map_or(0, |mark| mark.seq_end);
        let on_disk = self.backlog.last();
        let kept = (on_disk.stream.as_ref() == Some(stream)).then(|| seq_end(on_disk.read));
        let had = self.record.is_of(stream).then(|| seq_end(self.record.accepted));
        kept.max(had)
    }

    /// How many of these bytes, whole lines of the app's, may pass.
    pub fn admit(&self, app: &AppName, data: &[u8]) -> usize {
        let limits = self.way.limits.as_ref();
        limits.map_or(data.len(), |limits| limits.admit(app, data))
    }

    /// What counts.
    pub fn metrics(&self) -> &Metrics {
        &self.way.metrics
    }

    /// What the stream holds in memory, and whether that is too much for all.
    pub fn hold(&mut self, bytes: usize) -> bool {
        self.backlog.hold(bytes);
        self.backlog.spool().is_crowded()
    }

    /// Returns when something happened to what is on its way: the next is then on its, in its turn. Never while idle.
    ///
    /// *Cancel safety*: the batch stays in flight.
    pub async fn progress(&mut self) {
        let spill = OptionFuture::from(self.spill_at().map(sleep_until));
        tokio::select! {
            landed = self.flight.landed() => self.landed(landed),
            Some(()) = spill => self.spill(),
        }
    }

    /// Returns when everything was dealt with, and the record says so.
    ///
    /// *Cancel safety*: what is not accepted stays.
    pub async fn drain(&mut self) {
        while !self.is_idle() {
            self.progress().await;
        }
        self.save();
    }

    /// Puts everything that is in memory and not accepted on disk, what is in flight included. A disk that refuses is tried again later.
    pub fn spill(&mut self) {
        if self.backlog.is_empty()
            && let Flight::Publishing(flying) = &mut self.flight
        {
            if !self.backlog.append(&flying.step) {
                self.no_spill_before = Some(Instant::now() + SPOOL_AGAIN);
                return;
            }
            self.backlog.mark_taken();
            flying.on_disk = true;
            self.queued_bytes -= flying.step.data().len();
        }
        while let Some(step) = self.queue.pop_front() {
            if !self.backlog.append(&step) {
                self.no_spill_before = Some(Instant::now() + SPOOL_AGAIN);
                self.queue.push_front(step);
                return;
            }
            self.queued_bytes -= step.data().len();
        }
        self.no_spill_before = None;
    }

    /// When what is in memory is to go to disk. `None`: nothing is.
    fn spill_at(&self) -> Option<Instant> {
        let flying = matches!(&self.flight, Flight::Publishing(flying) if !flying.on_disk);
        let since = self.owed_since.filter(|_| flying || !self.queue.is_empty())?;
        let due = since + SPOOL_AFTER;
        Some(self.no_spill_before.map_or(due, |before| before.max(due)))
    }

    /// Writes the record: what was accepted since the last batch was handed over is else written with the next.
    pub fn save(&self) {
        self.way.checkpoints.save(&self.key, &self.record);
    }

    fn begin_next(&mut self) {
        if !self.is_idle() {
            return;
        }
        if self.is_spooling() {
            self.wait_turn(Duration::ZERO);
        } else {
            self.launch(None);
        }
    }

    /// What had to wait is published a few streams at a time.
    fn wait_turn(&mut self, pause: Duration) {
        let turns = self.way.spool.turns();
        self.flight = Flight::Turn(turn(turns, pause).boxed());
    }

    /// Hands the oldest step over. The turn lasts as long as that takes.
    fn launch(&mut self, turn: Option<OwnedSemaphorePermit>) {
        while let Some((step, on_disk)) = self.oldest() {
            match &step {
                Step::Begin(metadata) => {
                    self.record = self.record.renewed(metadata);
                    self.save();
                    self.backlog_settle(on_disk);
                }
                Step::Batch(batch, end) => {
                    self.note_sent(*end);
                    return self.fly(batch.clone(), step, on_disk, turn);
                }
                Step::Finish(batch) => return self.fly(batch.clone(), step, on_disk, turn),
            }
        }
        self.owed_since = None;
    }

    fn oldest(&mut self) -> Option<(Step, bool)> {
        match self.backlog.take() {
            Ok(Some(step)) => Some((step, true)),
            Ok(None) => self.queue.pop_front().map(|step| (step, false)),
            Err(last) => {
                self.queue.extend(unreadable(&self.record, &last));
                self.queue.pop_front().map(|step| (step, false))
            }
        }
    }

    fn fly(&mut self, batch: Batch, step: Step, on_disk: bool, turn: Option<OwnedSemaphorePermit>) {
        let (bus, wait) = (Arc::clone(&self.way.bus), self.way.publish_wait);
        let answer = async move {
            let answer = timeout(wait, bus.publish(batch)).await;
            drop(turn);
            answer.unwrap_or_else(|_| Err(BusError::Store(io::ErrorKind::TimedOut.into())))
        };
        let began = Instant::now();
        self.owed_since.get_or_insert(began);
        self.flight = Flight::Publishing(Publishing {
            step,
            on_disk,
            began,
            answer: answer.boxed(),
        });
    }

    /// What was sent before a restart may reach further than what is sent again now.
    fn note_sent(&mut self, end: Option<Mark>) {
        if let Some(end) = end {
            let farthest = self.record.sent.filter(|sent| sent.seq_end > end.seq_end);
            self.record.sent = farthest.or(Some(end));
            self.save();
        }
    }

    fn landed(&mut self, landed: Landed) {
        let flight = std::mem::replace(&mut self.flight, Flight::Idle);
        match (landed, flight) {
            (Landed::Turn(turn), _) => self.launch(turn),
            (Landed::Answer(answer), Flight::Publishing(flying)) => match answer {
                Ok(()) => self.has_accepted(flying),
                Err(BusError::UnknownApp(app)) => self.topic_gone(flying, app),
                Err(error) if error.is_transient() => self.refused_for_now(flying, &error),
                Err(error) => self.refused_for_good(flying, &error),
            },
            (Landed::Answer(_), _) => self.begin_next(),
        }
    }

    fn has_accepted(&mut self, flying: Publishing) {
        self.way.metrics.published(flying.began.elapsed());
        if self.refused {
            tracing::info!(stream = self.record.stream(), "bus accepts again");
        }
        self.refused = false;
        self.backoff.reset();
        self.settle(&flying);
    }

    fn settle(&mut self, flying: &Publishing) {
        match flying.step {
            Step::Batch(_, end) => self.record.accepted = end.or(self.record.accepted),
            Step::Finish(_) => self.record.ended = true,
            Step::Begin(_) => {}
        }
        if !flying.on_disk {
            self.queued_bytes -= flying.step.data().len();
        }
        self.owed_since = None;
        if self.record.ended || flying.on_disk {
            // Before it is gone from the disk.
            self.save();
        }
        self.backlog_settle(flying.on_disk);
        self.begin_next();
    }

    fn backlog_settle(&self, on_disk: bool) {
        if on_disk {
            self.backlog.settle();
        }
    }

    fn refused_for_now(&mut self, flying: Publishing, error: &BusError) {
        if !self.refused {
            tracing::warn!(stream = self.record.stream(), %error, "bus refuses for now");
        }
        let pause = self.put_back(flying);
        self.wait_turn(pause);
    }

    /// Somebody removed the app's topic while it has pods: it is made again, and the batch published then.
    fn topic_gone(&mut self, flying: Publishing, app: AppName) {
        tracing::warn!(stream = self.record.stream(), %app, "topic gone: made again");
        let pause = self.put_back(flying);
        let (bus, turns) = (Arc::clone(&self.way.bus), self.way.spool.turns());
        let made = async move {
            let turn = turn(turns, pause).await;
            if let Err(error) = bus.create(&app).await {
                tracing::warn!(%app, %error, "topic not made");
            }
            turn
        };
        self.flight = Flight::Turn(made.boxed());
    }

    /// What was refused is the oldest again. Returns how long to wait before it is handed over again.
    fn put_back(&mut self, flying: Publishing) -> Duration {
        self.way.metrics.refusals.inc();
        self.refused = true;
        if flying.on_disk {
            self.backlog.put_back();
        } else {
            self.queue.push_front(flying.step);
        }
        self.backoff.next_delay()
    }

    /// It would block its stream for ever: told as a loss instead.
    fn refused_for_good(&mut self, flying: Publishing, error: &BusError) {
        let (seq, lines) = match &flying.step {
            Step::Batch(batch, _) | Step::Finish(batch) => (batch.seq, batch.lines()),
            Step::Begin(_) => (0, 0),
        };
        tracing::error!(stream = self.record.stream(), seq, lines, %error, "batch refused");
        match &flying.step {
            Step::Batch(batch, end) if matches!(batch.content, Content::Lines { .. }) => {
                self.way.metrics.lost((&GapReason::Refused).into(), lines);
                let loss = told_lost(batch, GapReason::Refused);
                if !flying.on_disk {
                    self.queued_bytes -= batch.data().len();
                }
                self.fly(loss.clone(), Step::Batch(loss, *end), flying.on_disk, None);
            }
            _ => self.settle(&flying),
        }
    }
}

impl Flight {
    async fn landed(&mut self) -> Landed {
        match self {
            Self::Idle => future::pending().await,
            Self::Turn(turn) => Landed::Turn(turn.await),
            Self::Publishing(flying) => Landed::Answer((&mut flying.answer).await),
        }
    }
}

async fn turn(turns: Arc<Semaphore>, pause: Duration) -> Option<OwnedSemaphorePermit> {
    sleep(pause).await;
    turns.acquire_owned().await.ok()
}

/// What was on disk and cannot be read back: a loss, as far as it was the stream that the record is of.
fn unreadable(record: &Record, last: &Last) -> Option<Step> {
    let metadata = record
        .metadata()
        .filter(|metadata| last.stream.as_ref() == Some(&metadata.stream))?;
    let seq = record.accepted.map_or(0, |accepted| accepted.seq_end);
    let end = last.read.filter(|read| read.seq_end > seq)?;
    let loss = Gap {
        lines: end.seq_end - seq,
        reason: GapReason::Spool,
        from: record.accepted.map(|accepted| accepted.anchor.timestamp()),
        to: Some(end.anchor.timestamp()),
    };
    let batch = Batch {
        metadata: Arc::new(metadata),
        seq,
        content: Content::Gap(loss),
    };
    Some(Step::Batch(batch, Some(end)))
}
