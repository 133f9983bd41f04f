//! Merges the live lines of many streams by timestamp, with a reorder window as short as recent
//! disorder allows.
//!
//! The head is the highest merge key seen. A line is released once the head has been at or above
//! its key for the length of the window. Lines that arrive in order are released immediately; lines
//! that arrive behind the head by less than the window are still sorted in.

mod disorder;
#[cfg(test)]
mod tests;

use std::{collections::VecDeque, time::Duration};

use bus::{
    AppName, PublishTime, Timestamp,
    cursor::StreamKey,
    reassembly::{Event, EventKind, Now},
};
use system::collections::HashMap;

use self::disorder::{Disorder, MAX_WINDOW};
use crate::{
    frame::{Builder, Chunk, Entry, Frame, to_u32},
    line::{NoticeLine, event_data},
};

/// Reassembly may hold a stream's first events until it has found the start of the stream; they
/// then arrive together. For this long after a stream's first event, events older than
/// [`HELD_BY_REASSEMBLY`] do not count as disorder.
const JOIN_PERIOD: Duration = Duration::from_millis(20);
const HELD_BY_REASSEMBLY: Duration = Duration::from_millis(100);

/// Resolution at which advances of the head are recorded.
const HEAD_RESOLUTION: Duration = Duration::from_millis(1);

/// Above this many buffered bytes, lines are released before their window is over.
const MAX_BUFFERED_BYTES: usize = 16 << 20;

/// Sorts before every line.
const MIN_KEY: Timestamp = Timestamp(i64::MIN);

/// Reassembled events that wait for their reorder window.
pub(crate) struct Merge {
    app: AppName,
    streams: HashMap<StreamKey, StreamKeys>,
    buffered: Vec<Option<Buffered>>,
    /// Free slots of `buffered`.
    free: Vec<u32>,
    pending: Vec<Entry>,
    bytes: usize,
    /// Highest key seen.
    head: Timestamp,
    /// When the head advanced, and to which key.
    head_advances: VecDeque<(Duration, Timestamp)>,
    /// Entries up to this key can be released.
    watermark: Timestamp,
    disorder: Disorder,
    newest: PublishTime,
    /// Nothing was pushed since the last release, so `pending` is sorted.
    is_sorted: bool,
}

/// Merge keys of a stream.
struct StreamKeys {
    /// Key of the last line or gap.
    last: Timestamp,
    /// Key of the last gap, after which late lines are placed.
    gap: Timestamp,
    /// When the first event arrived.
    since: Duration,
}

impl StreamKeys {
    fn new(since: Duration) -> Self {
        Self {
            last: MIN_KEY,
            gap: MIN_KEY,
            since,
        }
    }
}

struct Buffered {
    chunk: Chunk,
    /// Number of its entries that are pending.
    entries: usize,
}

impl Merge {
    pub(crate) fn new(app: AppName) -> Self {
        Self {
            app,
            streams: HashMap::default(),
            buffered: Vec::new(),
            free: Vec::new(),
            pending: Vec::new(),
            bytes: 0,
            head: MIN_KEY,
            head_advances: VecDeque::new(),
            watermark: MIN_KEY,
            disorder: Disorder::default(),
            newest: PublishTime(0),
            is_sorted: true,
        }
    }

    /// Adds an event. Events of one stream must be added in stream order.
    pub(crate) fn push(&mut self, event: Event, now: Now) {
        self.newest = self.newest.max(event.published);
        self.is_sorted = false;
        let key = StreamKey::of(&event.metadata.stream);
        match &event.kind {
            EventKind::Lines { late: true, .. } => self.push_late(key, event),
            EventKind::Lines { .. } => self.push_lines(key, event, now),
            EventKind::Gap { .. } => {
                // Behind the stream's last line, or at the head if the stream has no line yet.
                let keys = self.streams.entry(key).or_insert_with(|| StreamKeys {
                    last: self.head,
                    ..StreamKeys::new(now.elapsed)
                });
                keys.gap = keys.last;
                let at = keys.last;
                let time = if at > MIN_KEY {
                    at
                } else {
                    Timestamp::from(event.published)
                };
                let chunk = self.buffer(Chunk::Notice(Box::new(NoticeLine::gap(key, &event, time))), 1);
                self.pending.push(Entry::notice(at, chunk));
            }
            EventKind::End => {}
        }
    }

    /// Adds late lines. They are released directly after their gap.
    fn push_late(&mut self, key: StreamKey, event: Event) {
        let at = self.streams.get(&key).map_or(MIN_KEY, |keys| keys.gap);
        let first = self.pending.len();
        let mut start = 0;
        for (line, end) in (0..).zip(line_ends(event_data(&event))) {
            self.pending.push(Entry {
                key: at,
                chunk: 0,
                line,
                start,
                end,
            });
            start = end;
        }
        self.buffer_lines(first, key, event);
    }

    fn push_lines(&mut self, key: StreamKey, event: Event, now: Now) {
        let published = Timestamp::from(event.published);
        // A clock that is ahead must not advance the head: its lines merge at the head instead.
        let latest = later(Timestamp::from(self.newest), MAX_WINDOW);
        let time = |line: &[u8]| Timestamp::split_line(line).map_or(published, |(time, _)| time);
        let data = event_data(&event);
        let keys = self.streams.entry(key).or_insert_with(|| StreamKeys::new(now.elapsed));
        let (mut at, joins) = (
            keys.last,
            now.elapsed < keys.since + JOIN_PERIOD && now.bus.since(event.published) > HELD_BY_REASSEMBLY,
        );
        let first = self.pending.len();
        let mut start = 0;
        for (line, end) in (0..).zip(line_ends(data)) {
            let time = time(&data[start as usize..end as usize]);
            let line_key = if time > latest || behind(self.head, time) > MAX_WINDOW {
                self.head
            } else {
                time
            };
            at = at.max(line_key);
            self.pending.push(Entry {
                key: at,
                chunk: 0,
                line,
                start,
                end,
            });
            start = end;
        }
        if let Some(first) = self.pending.get(first)
            && !joins
        {
            self.disorder.record(behind(self.head, first.key), now.elapsed);
        }
        if let Some(keys) = self.streams.get_mut(&key) {
            keys.last = at;
        }
        self.advance(at, now.elapsed);
        self.buffer_lines(first, key, event);
    }

    /// Buffers the event whose lines are the pending entries from `first` on.
    fn buffer_lines(&mut self, first: usize, key: StreamKey, event: Event) {
        let entries = self.pending.len() - first;
        if entries == 0 {
            return;
        }
        self.bytes += event.data_len();
        let chunk = self.buffer(Chunk::Lines { key, event }, entries);
        self.pending[first..].iter_mut().for_each(|entry| entry.chunk = chunk);
    }

    /// Stores a chunk and returns its index.
    fn buffer(&mut self, chunk: Chunk, entries: usize) -> u32 {
        let buffered = Some(Buffered { chunk, entries });
        if let Some(at) = self.free.pop() {
            self.buffered[at as usize] = buffered;
            return at;
        }
        self.buffered.push(buffered);
        to_u32(self.buffered.len() - 1)
    }

    fn advance(&mut self, at: Timestamp, elapsed: Duration) {
        if at <= self.head {
            return;
        }
        self.head = at;
        match self.head_advances.back_mut() {
            Some((when, head)) if elapsed < *when + HEAD_RESOLUTION => *head = at,
            _ => self.head_advances.push_back((elapsed, at)),
        }
    }

    /// Returns when to call [`release`](Self::release), on the clock of [`Now::elapsed`]. `None` if
    /// nothing is pending.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        let first = self.pending.first()?;
        // Lines pushed since the last release may be due already.
        let advanced = self
            .head_advances
            .iter()
            .find(|(_, head)| self.is_sorted && *head >= first.key);
        Some(advanced.map_or(Duration::ZERO, |(when, _)| *when + self.disorder.window()))
    }

    /// Releases the lines whose reorder window is over.
    pub(crate) fn release(&mut self, now: Duration) -> Vec<Frame> {
        self.disorder.expire(now);
        let window = self.disorder.window();
        while let Some((when, head)) = self.head_advances.front().copied()
            && when + window <= now
        {
            self.head_advances.pop_front();
            self.watermark = self.watermark.max(head);
        }
        if self.bytes > MAX_BUFFERED_BYTES {
            self.watermark = self.head;
        }
        self.release_up_to(self.watermark)
    }

    /// Releases all lines.
    pub(crate) fn release_all(&mut self) -> Vec<Frame> {
        self.release_up_to(Timestamp(i64::MAX))
    }

    fn release_up_to(&mut self, watermark: Timestamp) -> Vec<Frame> {
        self.is_sorted = true;
        // The sort is stable: entries with equal keys keep their stream order.
        if !self.pending.is_sorted_by_key(|entry| entry.key) {
            self.pending.sort_by_key(|entry| entry.key);
        }
        let ready = self.pending.partition_point(|entry| entry.key <= watermark);
        let mut frames = Vec::new();
        let mut builder = Builder::new(self.app.clone());
        for entry in self.pending.drain(..ready) {
            let slot = &mut self.buffered[entry.chunk as usize];
            let Some(buffered) = slot else { continue };
            builder.add(&entry, &buffered.chunk);
            buffered.entries -= 1;
            if buffered.entries == 0 {
                if let Chunk::Lines { event, .. } = &buffered.chunk {
                    self.bytes -= event.data_len();
                }
                *slot = None;
                self.free.push(entry.chunk);
                // The slot can be reused while this frame is still being built.
                builder.forget_index(entry.chunk);
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

    /// Drops the state of streams whose last line is older than this.
    pub(crate) fn forget(&mut self, before: Timestamp) {
        self.streams.retain(|_, keys| keys.last >= before);
    }
}

/// Iterates over the end offsets of lines.
fn line_ends(data: &[u8]) -> impl Iterator<Item = u32> {
    memchr::memchr_iter(b'\n', data).map(|at| to_u32(at + 1))
}

/// Returns how far `time` is behind `head`, or zero.
fn behind(head: Timestamp, time: Timestamp) -> Duration {
    Duration::from_nanos(u64::try_from(head.0.saturating_sub(time.0)).unwrap_or_default())
}

fn later(time: Timestamp, by: Duration) -> Timestamp {
    Timestamp(time.0.saturating_add(i64::try_from(by.as_nanos()).unwrap_or(i64::MAX)))
}
