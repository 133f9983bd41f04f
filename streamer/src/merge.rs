//! Puts the live lines of many streams in the order of their timestamps, held only as long as the disorder lately seen asks for.
//!
//! The head is the highest key seen. A line may be shown once the head has been at or above its key for the hold. So what arrives in order is shown at once, and what
//! arrives behind the head by less than the hold still finds its place.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use bus::{
    AppName, PublishTime, Timestamp,
    cursor::StreamKey,
    reassembly::{Event, EventKind, Now},
};

use crate::frame::{self, Builder, Entry, Frame, Source, Told, narrow};

/// Disorder above this is a wrong clock, or backlog: no hold is long enough for it. Also the longest hold.
const MOST: Duration = Duration::from_secs(1);

/// The next disorder may be up to twice what was seen, but no more than this above it. In order means no hold at all.
const MARGIN: Duration = Duration::from_millis(2);

/// How long disorder counts as seen lately: this, to twice this.
const LATELY: Duration = Duration::from_secs(5);

/// What a stream begins with may have been held until it was known where it begins: then its first events come together, and those that the bus had before this say nothing
/// of the disorder to come.
const JOINS: Duration = Duration::from_millis(20);
const HELD: Duration = Duration::from_millis(100);

/// How finely the head is remembered: steps within this of each other are one.
const STEP: Duration = Duration::from_millis(1);

/// Bytes held above which lines are shown before their hold is over: order is worth less than memory.
const MAX_HELD_BYTES: usize = 16 << 20;

/// Before all others.
const NOWHERE: Timestamp = Timestamp(i64::MIN);

/// Settled events that wait for their place, and what tells where that is.
pub(crate) struct Merge {
    app: AppName,
    streams: HashMap<StreamKey, Keys>,
    held: Vec<Option<Held>>,
    free: Vec<u32>,
    pending: Vec<Entry>,
    bytes: usize,
    /// The highest key seen, and when it became so high.
    head: Timestamp,
    steps: VecDeque<(Duration, Timestamp)>,
    /// All with a key up to this may be shown.
    watermark: Timestamp,
    disorder: Disorder,
    newest: PublishTime,
    /// Nothing was pushed since the last look: what is pending is sorted.
    looked_at: bool,
}

/// Where a stream stands among the others.
struct Keys {
    /// Its last line's, or gap's.
    last: Timestamp,
    /// Its last gap's: what comes late comes behind that.
    gap: Timestamp,
    /// When its first event came.
    since: Duration,
}

impl Keys {
    fn new(since: Duration) -> Self {
        Self {
            last: NOWHERE,
            gap: NOWHERE,
            since,
        }
    }
}

struct Held {
    source: Source,
    /// Entries of it that are pending.
    entries: usize,
}

impl Merge {
    pub(crate) fn new(app: AppName) -> Self {
        Self {
            app,
            streams: HashMap::new(),
            held: Vec::new(),
            free: Vec::new(),
            pending: Vec::new(),
            bytes: 0,
            head: NOWHERE,
            steps: VecDeque::new(),
            watermark: NOWHERE,
            disorder: Disorder::default(),
            newest: PublishTime(0),
            looked_at: true,
        }
    }

    /// Takes an event. Events of one stream come in their order.
    pub(crate) fn push(&mut self, event: Event, now: Now) {
        self.newest = self.newest.max(event.published);
        self.looked_at = false;
        let key = StreamKey::of(&event.metadata.stream);
        match &event.kind {
            EventKind::Lines { late: true, .. } => self.push_late(key, event),
            EventKind::Lines { .. } => self.push_lines(key, event, now),
            EventKind::Gap { .. } => {
                // Behind the stream's last line; where it has none, where the others are.
                let keys = self.streams.entry(key).or_insert_with(|| Keys {
                    last: self.head,
                    ..Keys::new(now.elapsed)
                });
                keys.gap = keys.last;
                let at = keys.last;
                let time = if at > NOWHERE {
                    at
                } else {
                    Timestamp::from(event.published)
                };
                let source = self.hold(Source::Told(Told::gap(key, &event, time)), 1);
                self.pending.push(Entry::told(at, source));
            }
            EventKind::End => {}
        }
    }

    /// Its place is gone: it is passed on as soon as its gap is.
    fn push_late(&mut self, key: StreamKey, event: Event) {
        let at = self.streams.get(&key).map_or(NOWHERE, |keys| keys.gap);
        let first = self.pending.len();
        let mut start = 0;
        for (line, end) in (0..).zip(ends(frame::data(&event))) {
            self.pending.push(Entry {
                key: at,
                source: 0,
                line,
                start,
                end,
            });
            start = end;
        }
        self.place(first, key, event);
    }

    fn push_lines(&mut self, key: StreamKey, event: Event, now: Now) {
        let taken = Timestamp::from(event.published);
        // A clock that is ahead moves nobody: its lines stand where the others are.
        let latest = later(Timestamp::from(self.newest), MOST);
        let time = |line: &[u8]| Timestamp::split_line(line).map_or(taken, |(time, _)| time);
        let data = frame::data(&event);
        let keys = self.streams.entry(key).or_insert_with(|| Keys::new(now.elapsed));
        let (mut at, joins) = (
            keys.last,
            now.elapsed < keys.since + JOINS && now.bus.since(event.published) > HELD,
        );
        let first = self.pending.len();
        let mut start = 0;
        for (line, end) in (0..).zip(ends(data)) {
            let time = time(&data[start as usize..end as usize]);
            let stands = if time > latest || behind(self.head, time) > MOST {
                self.head
            } else {
                time
            };
            at = at.max(stands);
            self.pending.push(Entry {
                key: at,
                source: 0,
                line,
                start,
                end,
            });
            start = end;
        }
        if let Some(first) = self.pending.get(first)
            && !joins
        {
            self.disorder.note(behind(self.head, first.key), now.elapsed);
        }
        if let Some(keys) = self.streams.get_mut(&key) {
            keys.last = at;
        }
        self.advance(at, now.elapsed);
        self.place(first, key, event);
    }

    /// The entries from `first` on are lines of this event.
    fn place(&mut self, first: usize, key: StreamKey, event: Event) {
        let entries = self.pending.len() - first;
        if entries == 0 {
            return;
        }
        self.bytes += event.data_len();
        let source = self.hold(Source::Lines { key, event }, entries);
        self.pending[first..].iter_mut().for_each(|entry| entry.source = source);
    }

    fn hold(&mut self, source: Source, entries: usize) -> u32 {
        let held = Some(Held { source, entries });
        if let Some(at) = self.free.pop() {
            self.held[at as usize] = held;
            return at;
        }
        self.held.push(held);
        narrow(self.held.len() - 1)
    }

    fn advance(&mut self, at: Timestamp, elapsed: Duration) {
        if at <= self.head {
            return;
        }
        self.head = at;
        match self.steps.back_mut() {
            Some((when, head)) if elapsed < *when + STEP => *head = at,
            _ => self.steps.push_back((elapsed, at)),
        }
    }

    /// When [`take`](Self::take) is to be called, on the clock of [`Now::elapsed`]. `None` where nothing waits.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        let first = self.pending.first()?;
        // What was pushed since the last look may have its place already.
        let step = self.steps.iter().find(|(_, head)| self.looked_at && *head >= first.key);
        Some(step.map_or(Duration::ZERO, |(when, _)| *when + self.disorder.hold()))
    }

    /// The lines whose hold is over, in frames.
    pub(crate) fn take(&mut self, now: Duration) -> Vec<Frame> {
        self.disorder.forget(now);
        let hold = self.disorder.hold();
        while let Some((when, head)) = self.steps.front().copied()
            && when + hold <= now
        {
            self.steps.pop_front();
            self.watermark = self.watermark.max(head);
        }
        if self.bytes > MAX_HELD_BYTES {
            self.watermark = self.head;
        }
        self.take_up_to(self.watermark)
    }

    /// All lines, held or not.
    pub(crate) fn take_all(&mut self) -> Vec<Frame> {
        self.take_up_to(Timestamp(i64::MAX))
    }

    fn take_up_to(&mut self, watermark: Timestamp) -> Vec<Frame> {
        self.looked_at = true;
        // Stable: what came in a stream's order keeps it among equal keys.
        if !self.pending.is_sorted_by_key(|entry| entry.key) {
            self.pending.sort_by_key(|entry| entry.key);
        }
        let ready = self.pending.partition_point(|entry| entry.key <= watermark);
        let mut frames = Vec::new();
        let mut builder = Builder::new(self.app.clone());
        for entry in self.pending.drain(..ready) {
            let slot = &mut self.held[entry.source as usize];
            let Some(held) = slot else { continue };
            builder.add(&entry, &held.source);
            held.entries -= 1;
            if held.entries == 0 {
                if let Source::Lines { event, .. } = &held.source {
                    self.bytes -= event.data_len();
                }
                *slot = None;
                self.free.push(entry.source);
                // The number may be given anew: what it named lies in this frame.
                builder.close(entry.source);
            }
            if builder.is_full() {
                frames.push(std::mem::replace(&mut builder, Builder::new(self.app.clone())).finish());
            }
        }
        if !builder.is_empty() {
            frames.push(builder.finish());
        }
        frames
    }

    /// Forgets the streams whose last line is older than this.
    pub(crate) fn forget(&mut self, before: Timestamp) {
        self.streams.retain(|_, keys| keys.last >= before);
    }
}

/// The most disorder seen lately: two spans, so that forgetting costs nothing.
#[derive(Default)]
struct Disorder {
    now: Duration,
    before: Duration,
    since: Duration,
}

impl Disorder {
    fn note(&mut self, disorder: Duration, elapsed: Duration) {
        self.forget(elapsed);
        self.now = self.now.max(disorder);
    }

    fn forget(&mut self, elapsed: Duration) {
        if elapsed >= self.since + LATELY {
            let silent = elapsed >= self.since + LATELY * 2;
            self.before = if silent { Duration::ZERO } else { self.now };
            self.now = Duration::ZERO;
            self.since = elapsed;
        }
    }

    fn hold(&self) -> Duration {
        let seen = self.now.max(self.before);
        (seen + seen.min(MARGIN)).min(MOST)
    }
}

/// Where each line ends.
fn ends(data: &[u8]) -> impl Iterator<Item = u32> {
    memchr::memchr_iter(b'\n', data).map(|at| narrow(at + 1))
}

/// How far a time lies behind another; nothing where it does not.
fn behind(head: Timestamp, time: Timestamp) -> Duration {
    Duration::from_nanos(u64::try_from(head.0.saturating_sub(time.0)).unwrap_or_default())
}

fn later(time: Timestamp, by: Duration) -> Timestamp {
    Timestamp(time.0.saturating_add(i64::try_from(by.as_nanos()).unwrap_or(i64::MAX)))
}

#[cfg(test)]
mod tests;
