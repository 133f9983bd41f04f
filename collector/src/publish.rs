//! A stream's way to the bus: one batch in flight, the next gathers meanwhile.

use std::{collections::VecDeque, future, sync::Arc, time::Duration};

use bus::{Batch, Bus, BusError, Content, Loss, LossReason, Origin, StreamId, Timestamp};
use futures::future::BoxFuture;

use crate::{
    anchor::Mark,
    backoff::Backoff,
    checkpoint::{Checkpoints, Record},
    instance::InstanceKey,
};

/// The first wait after the bus refused a batch for now: about what a retry on the way costs.
const RETRY_FIRST: Duration = Duration::from_millis(50);

/// The longest: a bus that comes back is noticed within this.
const RETRY_MOST: Duration = Duration::from_secs(5);

/// One thing to be done, in its turn.
#[derive(Debug)]
pub enum Step {
    /// Publish; the mark is at the end of its lines, where it has any.
    Batch(Batch, Option<Mark>),
    /// Publish; the instance's last stream ends with it, and is not to be read again.
    Finish(Batch),
    /// A new stream of the instance begins: its record takes the old one's place.
    Begin(Arc<Origin>),
}

/// A stream's way to the bus.
///
/// *Order*: a batch is handed over once the one before was accepted. *Bound*: none of its own: see [`queued_bytes`](Self::queued_bytes).
pub struct Outlet {
    bus: Arc<dyn Bus>,
    checkpoints: Checkpoints,
    key: InstanceKey,
    record: Record,
    queue: VecDeque<Step>,
    queued_bytes: usize,
    in_flight: Option<InFlight>,
}

struct InFlight {
    accepted: BoxFuture<'static, ()>,
    bytes: usize,
    end: Option<Mark>,
    finishes: bool,
}

impl Outlet {
    /// Of an instance whose record this is.
    pub fn new(bus: Arc<dyn Bus>, checkpoints: Checkpoints, key: InstanceKey, record: Record) -> Self {
        Self {
            bus,
            checkpoints,
            key,
            record,
            queue: VecDeque::new(),
            queued_bytes: 0,
            in_flight: None,
        }
    }

    /// Puts a step behind the others, and begins with it where there are none.
    pub fn push(&mut self, step: Step) {
        if let Step::Batch(batch, _) | Step::Finish(batch) = &step {
            self.queued_bytes += batch.data().len();
        }
        self.queue.push_back(step);
        self.begin_next();
    }

    /// Whether there is nothing to wait for.
    pub fn is_idle(&self) -> bool {
        self.in_flight.is_none()
    }

    /// Bytes that were pushed and not accepted.
    pub fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    /// The seq up to which the bus has this stream's lines. `None`: another stream's batches are still on their way.
    pub fn accepted(&self, stream: &StreamId) -> Option<u64> {
        let ours = self.record.is_of(stream);
        ours.then(|| self.record.accepted.map_or(0, |accepted| accepted.seq_end))
    }

    /// Returns when the batch in flight is dealt with and the next is on its way. Never while idle.
    ///
    /// *Cancel safety*: the batch stays in flight.
    pub async fn progress(&mut self) {
        let Some(flying) = &mut self.in_flight else {
            return future::pending().await;
        };
        (&mut flying.accepted).await;
        self.queued_bytes -= flying.bytes;
        self.record.accepted = flying.end.or(self.record.accepted);
        self.record.ended |= flying.finishes;
        self.in_flight = None;
        if self.record.ended {
            self.save();
        }
        self.begin_next();
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

    /// Writes the record: what was accepted since the last batch was handed over is else written with the next.
    pub fn save(&self) {
        self.checkpoints.save(&self.key, &self.record);
    }

    fn begin_next(&mut self) {
        while self.in_flight.is_none()
            && let Some(step) = self.queue.pop_front()
        {
            match step {
                Step::Begin(origin) => {
                    self.record = self.record.renewed(&origin);
                    self.save();
                }
                Step::Batch(batch, end) => self.begin(batch, end, false),
                Step::Finish(batch) => self.begin(batch, None, true),
            }
        }
    }

    fn begin(&mut self, batch: Batch, end: Option<Mark>, finishes: bool) {
        if let Some(end) = end {
            // What was sent before a restart may reach further than what is sent again now.
            let farthest = self.record.sent.filter(|sent| sent.seq_end > end.seq_end);
            self.record.sent = farthest.or(Some(end));
            self.save();
        }
        self.in_flight = Some(InFlight {
            bytes: batch.data().len(),
            end,
            finishes,
            accepted: Box::pin(publish(Arc::clone(&self.bus), batch)),
        });
    }
}

/// Publishes a batch, however long it takes. One that is refused for good is told as a loss.
async fn publish(bus: Arc<dyn Bus>, batch: Batch) {
    let Err(error) = persist(&*bus, &batch).await else {
        return;
    };
    let stream = batch.origin.stream.clone();
    tracing::error!(%stream, seq = batch.seq, lines = batch.lines(), %error, "batch refused");
    let Content::Lines { data, lines, .. } = &batch.content else {
        return;
    };
    let last = data[..data.len().saturating_sub(1)]
        .rsplit(|byte| *byte == b'\n')
        .next();
    let time = |line: &[u8]| Timestamp::split_line(line).map(|(time, _)| time);
    let loss = Batch {
        content: Content::Loss(Loss {
            lines: *lines,
            reason: LossReason::Refused,
            from: time(data),
            to: last.and_then(time),
        }),
        ..batch.clone()
    };
    if let Err(error) = persist(&*bus, &loss).await {
        tracing::error!(%stream, seq = loss.seq, lines = loss.lines(), %error, "loss refused");
    }
}

/// Publishes until the bus accepts it or refuses it for good.
async fn persist(bus: &dyn Bus, batch: &Batch) -> Result<(), BusError> {
    let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MOST);
    let mut failed = false;
    loop {
        match bus.publish(batch.clone()).await {
            Ok(()) => {
                if failed {
                    tracing::info!(stream = %batch.origin.stream, "bus accepts again");
                }
                return Ok(());
            }
            Err(error) if error.is_transient() => {
                if !failed {
                    tracing::warn!(stream = %batch.origin.stream, %error, "bus refuses for now");
                }
                failed = true;
                tokio::time::sleep(backoff.next()).await;
            }
            Err(error) => return Err(error),
        }
    }
}
