//! Reassembly: from deliveries, unordered and repeated, to every line once, in order, with every
//! gap reported once.
//!
//! It works as TCP does: a next expected sequence number per stream, repeats trimmed, early lines
//! buffered for a bounded time, then the gap reported. Lines that arrive after their gap was
//! reported are delivered and marked late. The folder uses neither clocks nor tasks: time is an
//! argument, and events are polled.
//!
//! ```
//! # use bus::reassembly::{GapTimeouts, Now, Reassembly};
//! # use std::time::Duration;
//! let reorder_window = Duration::from_secs(1);
//! let timeouts = GapTimeouts::Tail { reorder_window };
//! let mut reassembly = Reassembly::new(timeouts, bus::PublishTime::now(), Duration::from_secs(86_400));
//! // For each delivery: reassembly.push(delivery, now), then
//! while let Some(event) = reassembly.next_event() {
//!     println!("{} {}", event.metadata.stream, event.seq);
//! }
//! // At reassembly.deadline(): reassembly.declare_due(now)
//! # let _ = Now { elapsed: reorder_window, bus: bus::PublishTime::now() };
//! ```

mod acks;
mod delay;
mod event;
mod instances;
mod slice;
mod stream;
mod timeouts;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use system::collections::HashMap;

pub use crate::ranges::Ranges;
pub use event::{Event, EventKind, Receipt};
pub use timeouts::{CLOCK_TOLERANCE, GapTimeouts, LIVE_AGE, Now, REORDER_WINDOW};

use crate::{
    batch::{Content, Delivery},
    stream_id::StreamId,
    time::PublishTime,
};
use delay::Delay;
use event::Covers;
use instances::Instances;
use stream::{Arrival, Stream};

/// Maximum buffered bytes of all streams together. If it is exceeded, a reader with acks nacks the
/// batches with the highest sequence numbers; a reader without acks reports the gaps before them.
pub const MAX_BUFFERED_BYTES: usize = 64 << 20;

/// Reassembles all streams of one reader of an app.
///
/// *Memory*: [`MAX_BUFFERED_BYTES`] of early batches, and per stream a small record and its gaps,
/// until `history` has passed since the stream's last batch.
pub struct Reassembly {
    timeouts: GapTimeouts,
    since: PublishTime,
    history: Duration,
    catching_up: bool,
    streams: HashMap<StreamId, Stream>,
    /// Streams that a drain sends one after the other.
    instances: Instances,
    /// Streams that wait for missing lines, and when their gap is due.
    blocked: BTreeMap<StreamId, Duration>,
    events: VecDeque<Event>,
    buffered_bytes: usize,
    /// When the last batch arrived, and its age: the age of a drain's backlog.
    last_arrival: Option<(Duration, Duration)>,
    /// Current delay of the bus: a tail's reorder window is never shorter.
    delay: Delay,
}

impl Reassembly {
    /// Creates the state of a reader that is complete from publish time `since` on. A stream is
    /// forgotten when `history` has passed since its last batch; older batches are not redelivered.
    pub fn new(timeouts: GapTimeouts, since: PublishTime, history: Duration) -> Self {
        Self {
            timeouts,
            since,
            history,
            catching_up: matches!(timeouts, GapTimeouts::Tail { .. }),
            streams: HashMap::default(),
            instances: Instances::default(),
            blocked: BTreeMap::new(),
            events: VecDeque::new(),
            buffered_bytes: 0,
            last_arrival: None,
            delay: Delay::default(),
        }
    }

    /// Processes a delivery. Its events are then available from [`next_event`](Self::next_event).
    pub fn push(&mut self, delivery: Delivery, now: Now) {
        let Delivery { batch, published, ack } = delivery;
        if let Content::Marker(_) = batch.content {
            // Markers belong to the engine.
            return ack.into_iter().for_each(crate::Ack::ack);
        }
        let age = now.bus.since(published);
        self.last_arrival = Some((now.elapsed, age));
        if !self.catching_up {
            self.delay.record(age);
        }
        let id = batch.metadata.stream.clone();
        let holds = self.is_held(&id, published, now);
        let stream = self.streams.entry(id.clone()).or_insert_with(|| {
            let from_first_line = match self.timeouts {
                // It reads no history, and its subscription may begin anywhere in the stream.
                GapTimeouts::Drain { .. } => false,
                // What precedes the first batch to arrive was accepted before the reader began.
                GapTimeouts::InOrder => self.since == PublishTime(0),
                GapTimeouts::Tail { .. } => {
                    id.epoch().created() > self.since.later_by(CLOCK_TOLERANCE) || self.since == PublishTime(0)
                }
            };
            Stream::new(Arc::clone(&batch.metadata), from_first_line)
        });
        if holds {
            stream.hold();
        }
        let before = stream.buffered_bytes();
        let arrival = Arrival {
            elapsed: now.elapsed,
            published,
            backlog: age >= LIVE_AGE,
        };
        stream.push(batch, ack, arrival, &mut self.events);
        if self.timeouts == GapTimeouts::InOrder {
            stream.declare_all(&mut self.events);
        }
        let has_ended = stream.has_ended();
        self.buffered_bytes = self.buffered_bytes + stream.buffered_bytes() - before;
        self.update_deadline(&id, now.elapsed);
        if has_ended {
            self.release_after(&id, now.elapsed);
        }
        if self.buffered_bytes > MAX_BUFFERED_BYTES {
            self.limit_buffer(now);
        }
    }

    /// Marks the stored history as delivered: from now on gaps are reported when their timeout has
    /// passed.
    pub fn caught_up(&mut self, now: Now) {
        self.catching_up = false;
        for stream in self.streams.values_mut() {
            stream.restart_wait(now.elapsed);
        }
        let ids: Vec<StreamId> = self.streams.keys().cloned().collect();
        ids.iter().for_each(|id| self.update_deadline(id, now.elapsed));
    }

    /// Like [`caught_up`](Self::caught_up), for a reader that stops soon: joins each stream at its
    /// first buffered line at once. Afterwards only gaps are waited for
    /// ([`has_open_gaps`](Self::has_open_gaps)).
    pub fn join_all(&mut self, now: Now) {
        self.caught_up(now);
        let joining = self.streams.iter().filter(|(_, stream)| stream.is_joining());
        let ids: Vec<StreamId> = joining.map(|(id, _)| id.clone()).collect();
        for id in ids {
            self.change(&id, now.elapsed, |stream, events| stream.declare_first(events));
        }
    }

    /// Returns whether buffered lines wait for missing ones.
    pub fn has_open_gaps(&self) -> bool {
        !self.blocked.is_empty()
    }

    /// Returns the time after which everything that buffered lines wait for was published; 0 if it
    /// is unknown, `None` if nothing is missing.
    pub fn missing_since(&self) -> Option<PublishTime> {
        let waiting = self.blocked.keys().filter_map(|id| self.streams.get(id));
        waiting.map(Stream::missing_since).min()
    }

    /// Returns when to call [`declare_due`](Self::declare_due), on the clock of [`Now::elapsed`].
    pub fn deadline(&self) -> Option<Duration> {
        self.blocked.values().min().copied()
    }

    /// Reports the gaps whose timeout has passed.
    pub fn declare_due(&mut self, now: Now) {
        if self.backlog_is_old(now) {
            // Wait until no batch of the backlog has arrived for a whole timeout.
            let later = now.elapsed + self.timeout(false);
            self.blocked.values_mut().for_each(|due| *due = later.max(*due));
            return;
        }
        let due: Vec<StreamId> = self
            .blocked
            .iter()
            .filter(|(_, due)| **due <= now.elapsed)
            .map(|(id, _)| id.clone())
            .collect();
        // A stream that waits for another of its container is joined after that one.
        let is_held = |id: &StreamId| self.streams.get(id).is_some_and(Stream::is_held);
        let (held, free): (Vec<StreamId>, Vec<StreamId>) = due.into_iter().partition(is_held);
        for id in free.into_iter().chain(held) {
            // The delay of the bus may have grown since the wait started.
            self.update_deadline(&id, now.elapsed);
            self.postpone(&id);
            if self.blocked.get(&id).is_some_and(|due| *due <= now.elapsed) {
                // A drain declares nothing before the line at which it joins a stream.
                let reading_since = matches!(self.timeouts, GapTimeouts::Tail { .. }).then_some(self.since);
                self.change(&id, now.elapsed, |stream, events| {
                    if let Some(since) = reading_since {
                        stream.record_reading_since(since);
                    }
                    stream.declare_first(events);
                });
                self.release_after(&id, now.elapsed);
            }
        }
    }

    /// Reports all gaps at once, for a reader that stops at the end of the history.
    pub fn declare_all(&mut self) {
        let ids: Vec<StreamId> = self.blocked.keys().cloned().collect();
        let ids = if self.catching_up {
            self.streams.keys().cloned().collect()
        } else {
            ids
        };
        for id in ids {
            self.change(&id, Duration::MAX, |stream, events| stream.declare_all(events));
        }
    }

    /// Returns the next event.
    pub fn next_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Acknowledges a processed event, and with it the deliveries whose lines are now all
    /// acknowledged.
    ///
    /// A redelivery of acknowledged lines is acknowledged on arrival; one of lines that are not yet
    /// acknowledged waits with the first delivery.
    pub fn acknowledge(&mut self, receipt: &Receipt) {
        let Some(stream) = self.streams.get_mut(&receipt.stream) else {
            return;
        };
        match &receipt.covers {
            Covers::Lines(range) => stream.acks.acknowledge(range.clone()),
            Covers::Gap(seq, gap) => stream.acks.acknowledge_gap(*seq, gap),
            Covers::Nothing => {}
        }
    }

    /// Forgets the streams whose last batch is older than the history. Call it periodically.
    pub fn forget(&mut self, now: PublishTime) {
        let limit = now.earlier_by(self.history);
        self.streams.retain(|id, stream| {
            let keep = stream.last_published() >= limit || self.blocked.contains_key(id) || stream.acks.are_open();
            if !keep {
                self.instances.remove(id);
                self.buffered_bytes -= stream.buffered_bytes();
            }
            keep
        });
    }

    /// Returns the number of remembered streams.
    pub fn streams(&self) -> usize {
        self.streams.len()
    }

    /// Returns the bytes of lines that wait for missing ones.
    pub fn buffered_bytes(&self) -> usize {
        self.buffered_bytes
    }

    fn change(&mut self, id: &StreamId, elapsed: Duration, change: impl FnOnce(&mut Stream, &mut VecDeque<Event>)) {
        let Some(stream) = self.streams.get_mut(id) else {
            return;
        };
        let before = stream.buffered_bytes();
        change(stream, &mut self.events);
        self.buffered_bytes = self.buffered_bytes + stream.buffered_bytes() - before;
        self.update_deadline(id, elapsed);
    }

    /// Returns whether a stream of which nothing has arrived yet is held back, and records it.
    ///
    /// A drain sends the streams of a container instance one after the other. After it has opened a
    /// subscription, lines that precede a stream may still be redelivered.
    fn is_held(&mut self, id: &StreamId, published: PublishTime, now: Now) -> bool {
        let GapTimeouts::Drain { is_new, .. } = self.timeouts else {
            return false;
        };
        if self.streams.contains_key(id) {
            return false;
        }
        self.instances.insert(id, published);
        let is_opening = !is_new && now.elapsed < self.timeout(false);
        is_opening || self.waits_for_another(id)
    }

    /// Returns whether a stream of the same container instance that was published earlier has not
    /// ended.
    fn waits_for_another(&self, id: &StreamId) -> bool {
        let mut before = self.instances.before(id);
        before.any(|other| self.streams.get(other).is_some_and(|stream| !stream.has_ended()))
    }

    /// Extends the wait of a stream that is held back to that of the streams before it.
    fn postpone(&mut self, id: &StreamId) {
        if !self.streams.get(id).is_some_and(Stream::is_held) {
            return;
        }
        let before = self.instances.before(id).filter_map(|other| self.blocked.get(other));
        let latest = before.max().copied();
        if let (Some(due), Some(latest)) = (self.blocked.get_mut(id), latest) {
            *due = latest.max(*due);
        }
    }

    /// Releases the streams that waited for the end of this one, or of its wait.
    fn release_after(&mut self, id: &StreamId, elapsed: Duration) {
        let after: Vec<StreamId> = self.instances.after(id).cloned().collect();
        for next in after {
            if !self.waits_for_another(&next) {
                system::probe!("reassembly: a stream follows another of its container");
                self.change(&next, elapsed, |stream, events| stream.release(events));
            }
        }
    }

    /// Records whether the stream waits for missing lines, and until when.
    fn update_deadline(&mut self, id: &StreamId, elapsed: Duration) {
        // No gap is due while the reader catches up.
        let stream = if self.catching_up {
            None
        } else {
            self.streams.get_mut(id)
        };
        let joins = stream.as_ref().is_some_and(|stream| stream.is_joining());
        match stream.and_then(Stream::waits_since) {
            Some((since, backlog)) => {
                let timeout = self.join_timeout(elapsed).filter(|_| joins);
                let timeout = timeout.unwrap_or_else(|| self.timeout(backlog));
                self.blocked.insert(id.clone(), since + timeout)
            }
            None => self.blocked.remove(id),
        };
    }

    fn timeout(&self, backlog: bool) -> Duration {
        match self.timeouts {
            GapTimeouts::InOrder => Duration::ZERO,
            GapTimeouts::Tail { .. } if backlog => LIVE_AGE,
            GapTimeouts::Tail { reorder_window } => reorder_window.max(self.delay.bound()),
            GapTimeouts::Drain { ack_deadline, .. } => LIVE_AGE + ack_deadline * 2,
        }
    }

    /// Returns how long a drain waits before it joins a stream, while it need not wait for
    /// redeliveries: no reader was there before it.
    fn join_timeout(&self, elapsed: Duration) -> Option<Duration> {
        let is_new = matches!(self.timeouts, GapTimeouts::Drain { is_new: true, .. });
        (is_new && elapsed < self.timeout(false)).then(|| REORDER_WINDOW.max(self.delay.bound()))
    }

    /// Returns whether a drain still receives a backlog, which may fill its gaps.
    fn backlog_is_old(&self, now: Now) -> bool {
        let timeout = self.timeout(false);
        matches!(self.timeouts, GapTimeouts::Drain { .. })
            && self
                .last_arrival
                .is_some_and(|(at, age)| age > timeout && now.elapsed.saturating_sub(at) < timeout)
    }

    /// Nacks the batches with the highest sequence numbers of the largest stream while too much is
    /// buffered; without acks, reports its first gap.
    fn limit_buffer(&mut self, now: Now) {
        while self.buffered_bytes > MAX_BUFFERED_BYTES {
            let largest = self.streams.iter().max_by_key(|(_, stream)| stream.buffered_bytes());
            let Some(id) = largest.map(|(id, _)| id.clone()) else {
                return;
            };
            self.change(&id, now.elapsed, |stream, events| {
                if !stream.nack_last() {
                    stream.declare_first(events);
                }
            });
        }
        tracing::debug!(elapsed = ?now.elapsed, "reassembly buffer limit exceeded");
    }
}
