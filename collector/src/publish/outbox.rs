//! Publishes one stream's entries: one batch in flight, the next ones in memory or, if the bus is
//! unavailable, in the spool.

use std::{collections::VecDeque, future, io, sync::Arc, time::Duration};

use bus::{AppName, Batch, BusError, Content, GapReason, StreamId};
use futures::{
    FutureExt,
    future::{BoxFuture, OptionFuture},
};
use system::clock::{Instant, since, steady};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, sleep_until, timeout},
};

use crate::{
    anchor::ResumePoint,
    instance::InstanceKey,
    metrics::Metrics,
    publish::{
        checkpoint::Checkpoint,
        context::PublishContext,
        entry::OutboxEntry,
        gap::to_gap,
        spool::{ReadError, SpoolEnd, StreamSpool, replace_lost},
    },
    retry::Backoff,
};

/// Delay before the first retry: about the cost of a retry on the network.
const RETRY_FIRST: Duration = Duration::from_millis(50);

/// Longest delay between retries: a recovered bus is used within this time.
const RETRY_MAX: Duration = Duration::from_secs(5);

/// Data that the bus has not accepted within this time is spooled, so that it survives a kill of
/// the collector and a rotation on the node.
pub const SPOOL_AFTER: Duration = Duration::from_secs(1);

/// Delay before another attempt to write to a failed spool.
const SPOOL_RETRY: Duration = Duration::from_secs(5);

/// An accepted batch is recorded after this time, unless the next one has been: otherwise a collector
/// that is killed publishes the last batch of a quiet container again.
const SAVE_AFTER: Duration = Duration::from_secs(1);

/// One stream's outgoing entries.
///
/// *Order*: a batch is sent after the previous one was accepted; spooled entries precede those in
/// memory. *Bound*: none in memory by itself, see [`queued_bytes`](Self::queued_bytes) and
/// [`spill`](Self::spill); the spool's on disk.
pub struct Outbox {
    context: PublishContext,
    key: InstanceKey,
    checkpoint: Checkpoint,
    spool: StreamSpool,
    queue: VecDeque<OutboxEntry>,
    /// Bytes of the queue and of what is in flight from it.
    queued_bytes: usize,
    in_flight: InFlight,
    /// Since when an entry has been waiting for confirmation.
    unconfirmed_since: Option<Instant>,
    backoff: Backoff,
    /// The last attempt failed with a transient error.
    is_retrying: bool,
    no_spill_before: Option<Instant>,
    /// Since when the checkpoint on disk lacks an accepted batch.
    unsaved_since: Option<Instant>,
    /// After a loss of power, the checkpoint says that the bus may have lines of the stream, and
    /// nothing that has no number is missing after it.
    is_durable: bool,
}

enum InFlight {
    /// There is nothing to do.
    Idle,
    /// Waits for a publish permit.
    WaitingForPermit(BoxFuture<'static, Option<OwnedSemaphorePermit>>),
    /// Waits for the response of the bus.
    Publishing(Publishing),
}

struct Publishing {
    entry: OutboxEntry,
    on_disk: bool,
    started_at: Instant,
    response: BoxFuture<'static, Result<(), BusError>>,
}

enum FlightEvent {
    WaitingForPermit(Option<OwnedSemaphorePermit>),
    Response(Result<(), BusError>),
}

impl Outbox {
    /// Creates the outbox of an instance. Data spooled before the restart is published first.
    pub fn new(context: PublishContext, key: InstanceKey, checkpoint: Checkpoint, spool: StreamSpool) -> Self {
        let mut outbox = Self {
            spool,
            context,
            key,
            checkpoint,
            queue: VecDeque::new(),
            queued_bytes: 0,
            in_flight: InFlight::Idle,
            unconfirmed_since: None,
            backoff: Backoff::new(RETRY_FIRST, RETRY_MAX),
            is_retrying: false,
            no_spill_before: None,
            unsaved_since: None,
            is_durable: false,
        };
        outbox.is_durable = outbox.checkpoint.last_sent().is_some();
        outbox.start_next();
        outbox
    }

    /// Returns where the spooled data ends.
    pub fn spool_end(&self) -> SpoolEnd {
        self.spool.end()
    }

    /// Appends an entry and starts publishing if nothing is in flight.
    pub fn push(&mut self, entry: OutboxEntry) {
        let is_next_on_disk = self.queue.is_empty() && !self.spool.is_empty();
        if !(is_next_on_disk && self.spool.append(&entry)) {
            self.queued_bytes += entry.data().len();
            self.queue.push_back(entry);
        }
        self.start_next();
    }

    /// Returns whether everything is published.
    pub fn is_idle(&self) -> bool {
        matches!(self.in_flight, InFlight::Idle)
    }

    /// Returns whether entries must go to the spool because earlier ones are there.
    pub fn is_spooling(&self) -> bool {
        !self.spool.is_empty()
    }

    /// Returns whether the bus is unavailable and everything is spooled.
    pub fn is_fully_spooled(&self) -> bool {
        self.is_retrying && self.is_spooling() && self.queued_bytes == 0 && self.queue.is_empty()
    }

    /// Returns the bytes in memory that were pushed and not accepted.
    pub fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    /// Returns the sequence number up to which the bus or the spool has the stream. `None`: entries
    /// of another stream are pending.
    pub fn accepted(&self, stream: &StreamId) -> Option<u64> {
        let seq_end = |point: Option<ResumePoint>| point.map_or(0, |point| point.seq_end);
        let on_disk = self.spool.end();
        let spooled = (on_disk.stream.as_ref() == Some(stream)).then(|| seq_end(on_disk.read));
        let confirmed = self
            .checkpoint
            .is_for(stream)
            .then(|| seq_end(self.checkpoint.accepted));
        spooled.max(confirmed)
    }

    /// Returns how many of these bytes, in whole lines, the app's rate limit admits.
    pub fn admit(&self, app: &AppName, data: &[u8]) -> usize {
        let rate_limits = self.context.rate_limits.as_ref();
        rate_limits.map_or(data.len(), |rate_limits| rate_limits.admit(app, data))
    }

    /// Returns the metrics.
    pub fn metrics(&self) -> &Metrics {
        &self.context.metrics
    }

    /// Reports the stream's buffered bytes. Returns whether all streams together exceed the limit.
    pub fn report_buffered(&mut self, bytes: usize) -> bool {
        self.spool.report_buffered(bytes);
        self.spool.spool().is_crowded()
    }

    /// Returns after progress; never while idle. Starts publishing the next entry.
    ///
    /// *Cancel safety*: the batch stays in flight.
    pub async fn progress(&mut self) {
        let spill = OptionFuture::from(self.spill_at().map(sleep_until));
        let unsaved = self.unsaved_since.filter(|_| self.is_idle());
        let save = OptionFuture::from(unsaved.map(|at| sleep_until(at + SAVE_AFTER)));
        tokio::select! {
            event = self.in_flight.next_event() => self.handle_event(event),
            Some(()) = spill => self.spill(),
            Some(()) = save => {
                self.unsaved_since = None;
                self.save();
            }
        }
    }

    /// Returns when everything is published and the checkpoint is written.
    ///
    /// *Cancel safety*: unconfirmed entries are kept.
    pub async fn drain(&mut self) {
        while !self.is_idle() {
            self.progress().await;
        }
        self.save();
    }

    /// Writes everything in memory that is not accepted to the spool, including the batch in
    /// flight. A failed write is retried later.
    pub fn spill(&mut self) {
        if self.spool.is_empty()
            && let InFlight::Publishing(publishing) = &mut self.in_flight
        {
            if !self.spool.append(&publishing.entry) {
                self.no_spill_before = Some(steady() + SPOOL_RETRY);
                return;
            }
            system::probe!("spool: the batch in flight is written");
            self.spool.mark_in_flight();
            publishing.on_disk = true;
            self.queued_bytes -= publishing.entry.data().len();
        }
        while let Some(entry) = self.queue.pop_front() {
            if !self.spool.append(&entry) {
                self.no_spill_before = Some(steady() + SPOOL_RETRY);
                self.queue.push_front(entry);
                return;
            }
            self.queued_bytes -= entry.data().len();
        }
        self.no_spill_before = None;
    }

    /// Returns when data in memory must be spooled, or `None` if there is none.
    fn spill_at(&self) -> Option<Instant> {
        let publishing = matches!(&self.in_flight, InFlight::Publishing(publishing) if !publishing.on_disk);
        let since = self
            .unconfirmed_since
            .filter(|_| publishing || !self.queue.is_empty())?;
        let due = since + SPOOL_AFTER;
        Some(self.no_spill_before.map_or(due, |before| before.max(due)))
    }

    /// Writes the checkpoint. Otherwise an accepted batch is recorded together with the next one, or
    /// when none follows.
    pub fn save(&self) {
        self.context.checkpoints.save(&self.key, &self.checkpoint);
    }

    fn start_next(&mut self) {
        if !self.is_idle() {
            return;
        }
        if self.is_spooling() {
            self.wait_for_permit(Duration::ZERO);
        } else {
            self.publish_next(None);
        }
    }

    /// Delayed entries are published by a few streams at a time.
    fn wait_for_permit(&mut self, pause: Duration) {
        let permits = self.context.spool.permits();
        self.in_flight = InFlight::WaitingForPermit(permit(permits, pause).boxed());
    }

    /// Publishes the oldest entry. The permit is held until the response.
    fn publish_next(&mut self, permit: Option<OwnedSemaphorePermit>) {
        loop {
            let (entry, on_disk) = match self.pop_oldest() {
                Ok(Some(oldest)) => oldest,
                Ok(None) => break,
                Err(error) => return self.read_later(&error),
            };
            match &entry {
                OutboxEntry::Start(metadata, start) => {
                    self.checkpoint = self.checkpoint.for_new_epoch(metadata, *start);
                    self.is_durable = false;
                    self.save();
                    self.confirm_spooled(on_disk);
                }
                OutboxEntry::Batch(batch, end) => {
                    self.record_sent(*end);
                    return self.publish(batch.clone(), entry, on_disk, permit);
                }
                OutboxEntry::Finish(batch) => return self.publish(batch.clone(), entry, on_disk, permit),
            }
        }
        self.unconfirmed_since = None;
    }

    /// Returns the oldest entry and whether it is spooled.
    ///
    /// # Errors
    /// The spool cannot be read now. What is in memory follows what is spooled.
    fn pop_oldest(&mut self) -> io::Result<Option<(OutboxEntry, bool)>> {
        match self.spool.read_next() {
            Ok(Some(entry)) => return Ok(Some((entry, true))),
            Ok(None) => {}
            Err(ReadError::Refused(error)) => return Err(error),
            Err(ReadError::Lost(end)) => {
                for entry in replace_lost(&self.checkpoint, &end).into_iter().rev() {
                    if let OutboxEntry::Batch(batch, _) = &entry
                        && let Content::Gap(gap) = &batch.content
                    {
                        self.context.metrics.record_gap(&gap.reason, gap.lines);
                    }
                    self.queue.push_front(entry);
                }
            }
        }
        Ok(self.queue.pop_front().map(|entry| (entry, false)))
    }

    /// Reads the spool again after a delay.
    fn read_later(&mut self, error: &io::Error) {
        system::probe!("spool: the disk refuses to read");
        if !self.is_retrying {
            tracing::error!(stream = self.checkpoint.stream(), %error, "spool read failed, retrying");
        }
        self.is_retrying = true;
        // What is in memory must not wait there.
        self.unconfirmed_since.get_or_insert_with(steady);
        let pause = self.backoff.next_delay();
        self.wait_for_permit(pause);
    }

    fn publish(&mut self, batch: Batch, entry: OutboxEntry, on_disk: bool, permit: Option<OwnedSemaphorePermit>) {
        let (bus, wait) = (Arc::clone(&self.context.bus), self.context.publish_wait);
        let has_lines = matches!(&entry, OutboxEntry::Batch(_, Some(_)));
        if matches!(&batch.content, Content::Gap(gap) if gap.lines == 0) {
            // Reading the log again from before the gap would number the lines after it otherwise.
            self.is_durable = false;
        }
        let is_first = has_lines && !self.is_durable;
        self.is_durable |= has_lines;
        let unsynced = is_first.then(|| self.context.checkpoints.clone());
        let response = async move {
            if let Some(checkpoints) = unsynced {
                checkpoints.sync().await;
            }
            let response = timeout(wait, bus.publish(batch)).await;
            drop(permit);
            response.unwrap_or_else(|_| Err(BusError::Store(io::ErrorKind::TimedOut.into())))
        };
        let started_at = steady();
        self.unconfirmed_since.get_or_insert(started_at);
        self.in_flight = InFlight::Publishing(Publishing {
            entry,
            on_disk,
            started_at,
            response: response.boxed(),
        });
    }

    /// What was sent before a restart may extend beyond what is sent again now.
    fn record_sent(&mut self, end: Option<ResumePoint>) {
        if let Some(end) = end {
            let farthest = self.checkpoint.sent.filter(|sent| sent.seq_end > end.seq_end);
            self.checkpoint.sent = farthest.or(Some(end));
            self.save();
        }
    }

    fn handle_event(&mut self, event: FlightEvent) {
        let in_flight = std::mem::replace(&mut self.in_flight, InFlight::Idle);
        match (event, in_flight) {
            (FlightEvent::WaitingForPermit(permit), _) => self.publish_next(permit),
            (FlightEvent::Response(response), InFlight::Publishing(publishing)) => match response {
                Ok(()) => self.on_accepted(publishing),
                Err(BusError::UnknownApp(app)) => self.on_topic_missing(publishing, app),
                Err(error) if error.is_transient() => self.on_transient_error(publishing, &error),
                Err(error) => self.on_permanent_error(publishing, &error),
            },
            (FlightEvent::Response(_), _) => self.start_next(),
        }
    }

    fn on_accepted(&mut self, publishing: Publishing) {
        self.context.metrics.published(since(publishing.started_at));
        if self.is_retrying {
            tracing::info!(stream = self.checkpoint.stream(), "publishing recovered");
        }
        self.is_retrying = false;
        self.backoff.reset();
        self.confirm(&publishing);
    }

    fn confirm(&mut self, publishing: &Publishing) {
        let mut is_settled = false;
        match &publishing.entry {
            OutboxEntry::Batch(batch, end) => {
                self.checkpoint.accepted = end.or(self.checkpoint.accepted);
                self.unsaved_since = Some(steady());
                self.checkpoint.outdated &= end.is_none();
                // The last one of the notices at the start of a stream.
                is_settled = matches!(&batch.content, Content::Gap(gap) if gap.reason == GapReason::MayRepeat);
            }
            OutboxEntry::Finish(_) => self.checkpoint.ended = true,
            OutboxEntry::Start(..) => {}
        }
        self.checkpoint.doubtful &= !is_settled;
        if !publishing.on_disk {
            self.queued_bytes -= publishing.entry.data().len();
        }
        self.unconfirmed_since = None;
        if self.checkpoint.ended || publishing.on_disk || is_settled {
            // The checkpoint is written before the entry is removed from the spool.
            self.save();
        }
        self.confirm_spooled(publishing.on_disk);
        self.start_next();
    }

    fn confirm_spooled(&self, on_disk: bool) {
        if on_disk {
            self.spool.confirm();
        }
    }

    fn on_transient_error(&mut self, publishing: Publishing, error: &BusError) {
        system::probe!("publish: the bus refuses a batch for a time");
        if !self.is_retrying {
            tracing::warn!(stream = self.checkpoint.stream(), %error, "publish failed, retrying");
        }
        let pause = self.requeue(publishing);
        self.wait_for_permit(pause);
    }

    /// Creates the topic again if it was deleted while the app has pods, then publishes the batch.
    fn on_topic_missing(&mut self, publishing: Publishing, app: AppName) {
        system::probe!("publish: the topic is gone");
        tracing::warn!(stream = self.checkpoint.stream(), %app, "topic missing, creating it");
        let pause = self.requeue(publishing);
        let (bus, permits) = (Arc::clone(&self.context.bus), self.context.spool.permits());
        let made = async move {
            let permit = permit(permits, pause).await;
            if let Err(error) = bus.create(&app).await {
                tracing::warn!(%app, %error, "topic creation failed");
            }
            permit
        };
        self.in_flight = InFlight::WaitingForPermit(made.boxed());
    }

    /// Returns the entry to the front of the queue. Returns the delay before the next attempt.
    fn requeue(&mut self, publishing: Publishing) -> Duration {
        self.context.metrics.publish_retries.inc();
        self.is_retrying = true;
        if publishing.on_disk {
            self.spool.requeue();
        } else {
            self.queue.push_front(publishing.entry);
        }
        self.backoff.next_delay()
    }

    /// Replaces a batch that the bus rejects permanently by a gap; retrying it would block the
    /// stream.
    fn on_permanent_error(&mut self, publishing: Publishing, error: &BusError) {
        system::probe!("publish: the bus rejects a batch");
        let (seq, lines) = match &publishing.entry {
            OutboxEntry::Batch(batch, _) | OutboxEntry::Finish(batch) => (batch.seq, batch.lines()),
            OutboxEntry::Start(..) => (0, 0),
        };
        tracing::error!(stream = self.checkpoint.stream(), seq, lines, %error, "batch rejected, gap recorded");
        match &publishing.entry {
            OutboxEntry::Batch(batch, end) if matches!(batch.content, Content::Lines { .. }) => {
                self.context.metrics.record_gap(&GapReason::Refused, lines);
                let gap = to_gap(batch, GapReason::Refused);
                if !publishing.on_disk {
                    self.queued_bytes -= batch.data().len();
                }
                self.publish(gap.clone(), OutboxEntry::Batch(gap, *end), publishing.on_disk, None);
            }
            _ => self.confirm(&publishing),
        }
    }
}

impl InFlight {
    async fn next_event(&mut self) -> FlightEvent {
        match self {
            Self::Idle => future::pending().await,
            Self::WaitingForPermit(permit) => FlightEvent::WaitingForPermit(permit.await),
            Self::Publishing(publishing) => FlightEvent::Response((&mut publishing.response).await),
        }
    }
}

async fn permit(permits: Arc<Semaphore>, pause: Duration) -> Option<OwnedSemaphorePermit> {
    sleep(pause).await;
    permits.acquire_owned().await.ok()
}
