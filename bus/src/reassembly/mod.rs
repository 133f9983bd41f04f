//! From deliveries, in any order and more than once, to every line once, in order, with every loss told once.
//!
//! As TCP does it: the next expected seq a stream, repeats trimmed, what is early held for a bounded time, then the gap declared. What comes after its gap was
//! declared is delivered and marked late. Knows no clock and no task: time is an argument, events are taken out one by one.
//!
//! ```
//! # use bus::reassembly::{Moment, Patience, Reassembly};
//! # use std::time::Duration;
//! let hold = Duration::from_secs(1);
//! let mut reassembly = Reassembly::new(Patience::Tail { hold }, bus::PublishTime::now(), Duration::from_secs(86_400));
//! // for each delivery: reassembly.push(delivery, now), then
//! while let Some(event) = reassembly.next_event() {
//!     println!("{} {}", event.metadata.stream, event.seq);
//! }
//! // and at reassembly.deadline(): reassembly.declare_due(now)
//! # let _ = Moment { elapsed: hold, bus: bus::PublishTime::now() };
//! ```

mod acks;
mod delay;
mod slice;
mod stream;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    ops::Range,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;

pub use crate::ranges::Ranges;

use crate::{
    batch::{Content, Delivery, Gap, Part, StreamMetadata},
    stream::StreamId,
    time::PublishTime,
};
use delay::Delay;
use stream::{Arrival, Stream};

/// A stream this much younger than its reader's beginning was made while it read: it begins at 0. The slack is for clocks that differ.
pub const YOUNGER_BY: Duration = Duration::from_secs(10);

/// A batch older than this when it arrives is backlog, not live.
pub const LIVE: Duration = Duration::from_secs(10);

/// Bytes held, all streams together, above which the batches farthest ahead are given back, or, without acks, the gap before them is declared.
pub const MAX_HELD_BYTES: usize = 64 << 20;

/// How long what is early is held before the gap in front of it is declared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// Not at all: deliveries never overtake each other ([`Reader::in_order`](crate::Reader::in_order)).
    InOrder,
    /// A tail: this long, from arrival; longer, up to [`LIVE`], while what arrives is old by then; and without end until the reader has caught up.
    Tail {
        /// For live batches of a bus in time.
        hold: Duration,
    },
    /// A drain: twice the ack deadline and ten seconds, so that what went to a reader that died has come again; and not while its backlog is older than that.
    Drain {
        /// Of the subscription.
        ack_deadline: Duration,
    },
}

/// When something happens, on both clocks that count.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// Since any fixed point; never steps.
    pub elapsed: Duration,
    /// On the bus's time line.
    pub bus: PublishTime,
}

/// One thing that is now settled about a stream. A stream's events come in its order, save late lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Whose.
    pub metadata: Arc<StreamMetadata>,
    /// The first seq it is about.
    pub seq: u64,
    /// When the bus took the batch that said so.
    pub published: PublishTime,
    /// What.
    pub what: What,
}

/// What is settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// Lines.
    Lines {
        /// They themselves, each ending in a newline.
        data: Bytes,
        /// How many.
        lines: u64,
        /// Where it is part of a cut line.
        part: Option<Part>,
        /// They come after their gap was declared.
        late: bool,
    },
    /// Seqs that will not come.
    Gap {
        /// How many; 0 where that cannot be known.
        lines: u64,
        /// As told by who lost them; `None` where they simply did not arrive.
        loss: Option<Gap>,
    },
    /// The stream is complete.
    End,
}

/// What to show [`Reassembly::acknowledge`] once an event is dealt with for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    stream: StreamId,
    of: ReceiptOf,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum ReceiptOf {
    Lines(Range<u64>),
    Gap(u64, Gap),
    Nothing,
}

impl Event {
    /// Bytes of its lines.
    pub fn data_len(&self) -> usize {
        if let What::Lines { data, .. } = &self.what {
            data.len()
        } else {
            0
        }
    }

    /// What settles the deliveries that this event came from.
    pub fn receipt(&self) -> Receipt {
        let of = match &self.what {
            What::Lines { lines, .. } => ReceiptOf::Lines(self.seq..self.seq + lines),
            What::Gap { loss: Some(loss), .. } => ReceiptOf::Gap(self.seq, loss.clone()),
            What::Gap { loss: None, .. } | What::End => ReceiptOf::Nothing,
        };
        Receipt {
            stream: self.metadata.stream.clone(),
            of,
        }
    }
}

/// The state of all streams that one reader of an app sees.
///
/// *Memory*: [`MAX_HELD_BYTES`] of early batches, and for each stream one small record and its holes, until the history limit has passed since its last batch.
pub struct Reassembly {
    patience: Patience,
    since: PublishTime,
    history: Duration,
    catching_up: bool,
    streams: HashMap<StreamId, Stream>,
    /// Streams that wait for something missing, and when that is given up.
    blocked: BTreeMap<StreamId, Duration>,
    events: VecDeque<Event>,
    held_bytes: usize,
    /// When the last batch arrived, and how old it was: the age of a drain's backlog.
    last_arrival: Option<(Duration, Duration)>,
    /// How far behind the bus is: a tail's hold is never shorter.
    delay: Delay,
}

impl Reassembly {
    /// For a reader that sees all that was published `since`. A stream is remembered until `history` has passed since its last batch: nothing older is ever delivered again.
    pub fn new(patience: Patience, since: PublishTime, history: Duration) -> Self {
        Self {
            patience,
            since,
            history,
            catching_up: matches!(patience, Patience::Tail { .. }),
            streams: HashMap::new(),
            blocked: BTreeMap::new(),
            events: VecDeque::new(),
            held_bytes: 0,
            last_arrival: None,
            delay: Delay::default(),
        }
    }

    /// Takes a delivery. What it settles is then to be had from [`next_event`](Self::next_event).
    pub fn push(&mut self, delivery: Delivery, now: Moment) {
        let Delivery { batch, published, ack } = delivery;
        if let Content::Marker(_) = batch.content {
            // Its reader has seen it already: markers are the engine's.
            return ack.into_iter().for_each(crate::Ack::accept);
        }
        let age = now.bus.since(published);
        self.last_arrival = Some((now.elapsed, age));
        if !self.catching_up {
            self.delay.saw(age);
        }
        let id = batch.metadata.stream.clone();
        let stream = self.streams.entry(id.clone()).or_insert_with(|| {
            let begins = id.epoch().created() > self.since.later_by(YOUNGER_BY) || self.since == PublishTime(0);
            Stream::new(Arc::clone(&batch.metadata), begins)
        });
        let before = stream.held_bytes();
        let arrival = Arrival {
            elapsed: now.elapsed,
            published,
            backlog: age >= LIVE,
        };
        stream.take(batch, ack, arrival, &mut self.events);
        if self.patience == Patience::InOrder {
            stream.declare_all(&mut self.events);
        }
        self.held_bytes = self.held_bytes + stream.held_bytes() - before;
        self.reconsider(&id);
        if self.held_bytes > MAX_HELD_BYTES {
            self.relieve(now);
        }
    }

    /// The read-back is complete: from here on, what is missing is given up after the hold.
    pub fn caught_up(&mut self, now: Moment) {
        self.catching_up = false;
        for stream in self.streams.values_mut() {
            stream.restart_wait(now.elapsed);
        }
        let ids: Vec<StreamId> = self.streams.keys().cloned().collect();
        ids.iter().for_each(|id| self.reconsider(id));
    }

    /// The read-back is complete, and its reader stops soon: streams that were joined in their middle are joined where what came of them begins. What is left to
    /// wait for are holes: [`has_holes`](Self::has_holes).
    pub fn join_all(&mut self, now: Moment) {
        self.caught_up(now);
        let joining = self.streams.iter().filter(|(_, stream)| stream.is_joining());
        let ids: Vec<StreamId> = joining.map(|(id, _)| id.clone()).collect();
        for id in ids {
            self.change(&id, |stream, events| stream.declare_first(events));
        }
    }

    /// Whether something is missing before what is there. Without a hold, never.
    pub fn has_holes(&self) -> bool {
        !self.blocked.is_empty()
    }

    /// When [`declare_due`](Self::declare_due) is to be called next, on the clock of [`Moment::elapsed`].
    pub fn deadline(&self) -> Option<Duration> {
        self.blocked.values().min().copied()
    }

    /// Declares the gaps whose hold has passed.
    pub fn declare_due(&mut self, now: Moment) {
        if self.backlog_is_old(now) {
            // The deadline moves to when the backlog would have fallen silent for a whole hold.
            let later = now.elapsed + self.hold(false);
            self.blocked.values_mut().for_each(|due| *due = later.max(*due));
            return;
        }
        let due: Vec<StreamId> = self
            .blocked
            .iter()
            .filter(|(_, due)| **due <= now.elapsed)
            .map(|(id, _)| id.clone())
            .collect();
        for id in due {
            // The bus may have fallen behind since the wait began.
            self.reconsider(&id);
            if self.blocked.get(&id).is_some_and(|due| *due <= now.elapsed) {
                self.change(&id, |stream, events| stream.declare_first(events));
            }
        }
    }

    /// Declares every gap at once: for a reader that reads to an end and stops.
    pub fn declare_all(&mut self) {
        let ids: Vec<StreamId> = self.blocked.keys().cloned().collect();
        let ids = if self.catching_up {
            self.streams.keys().cloned().collect()
        } else {
            ids
        };
        for id in ids {
            self.change(&id, |stream, events| stream.declare_all(events));
        }
    }

    /// The next thing that is settled.
    pub fn next_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The reader has dealt with an event for good: accepts the deliveries whose lines are now all dealt with.
    ///
    /// A repeat of what was acknowledged is accepted as it arrives; one of what is delivered and not yet acknowledged waits here with the first.
    pub fn acknowledge(&mut self, receipt: &Receipt) {
        let Some(stream) = self.streams.get_mut(&receipt.stream) else {
            return;
        };
        match &receipt.of {
            ReceiptOf::Lines(range) => stream.acks.accept(range.clone()),
            ReceiptOf::Gap(seq, loss) => stream.acks.accept_loss(*seq, loss),
            ReceiptOf::Nothing => {}
        }
    }

    /// Forgets the streams whose last batch lies further back than history reaches. Call it now and then.
    pub fn forget(&mut self, now: PublishTime) {
        let limit = now.earlier_by(self.history);
        self.streams.retain(|id, stream| {
            let keep = stream.last_published() >= limit || self.blocked.contains_key(id) || stream.acks.are_open();
            if !keep {
                self.held_bytes -= stream.held_bytes();
            }
            keep
        });
    }

    /// How many streams it remembers.
    pub fn streams(&self) -> usize {
        self.streams.len()
    }

    /// Bytes that are held because something before them is missing.
    pub fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    fn change(&mut self, id: &StreamId, change: impl FnOnce(&mut Stream, &mut VecDeque<Event>)) {
        let Some(stream) = self.streams.get_mut(id) else {
            return;
        };
        let before = stream.held_bytes();
        change(stream, &mut self.events);
        self.held_bytes = self.held_bytes + stream.held_bytes() - before;
        self.reconsider(id);
    }

    /// Notes whether the stream waits, and until when.
    fn reconsider(&mut self, id: &StreamId) {
        // While it catches up nothing is given up, so nothing need be looked up.
        let stream = if self.catching_up {
            None
        } else {
            self.streams.get_mut(id)
        };
        match stream.and_then(Stream::waits_since) {
            Some((since, backlog)) => self.blocked.insert(id.clone(), since + self.hold(backlog)),
            None => self.blocked.remove(id),
        };
    }

    fn hold(&self, backlog: bool) -> Duration {
        match self.patience {
            Patience::InOrder => Duration::ZERO,
            Patience::Tail { .. } if backlog => LIVE,
            Patience::Tail { hold } => hold.max(self.delay.bound()),
            Patience::Drain { ack_deadline } => LIVE + ack_deadline * 2,
        }
    }

    /// A drain that is still fed with old batches has not seen all that may fill its holes.
    fn backlog_is_old(&self, now: Moment) -> bool {
        let hold = self.hold(false);
        matches!(self.patience, Patience::Drain { .. })
            && self
                .last_arrival
                .is_some_and(|(at, age)| age > hold && now.elapsed.saturating_sub(at) < hold)
    }

    /// Too much is held: what is farthest ahead goes back to the bus; where nothing can, the longest wait is given up.
    fn relieve(&mut self, now: Moment) {
        while self.held_bytes > MAX_HELD_BYTES {
            let fullest = self.streams.iter().max_by_key(|(_, stream)| stream.held_bytes());
            let Some(id) = fullest.map(|(id, _)| id.clone()) else {
                return;
            };
            self.change(&id, |stream, events| {
                if !stream.give_back_farthest() {
                    stream.declare_first(events);
                }
            });
        }
        tracing::debug!(elapsed = ?now.elapsed, "held too much: gave back what was farthest ahead");
    }
}
