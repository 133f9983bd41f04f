//! The newest frames of an app, read by any number of tails.

use std::{
    collections::VecDeque,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use bus::{BusClock, PublishTime};
use parking_lot::RwLock;
use tokio::sync::watch;

use crate::{
    format::sse,
    frame::{Frame, memory::MemoryBudget, rendered::EncodedCursor},
    hub::{delivered::Delivered, positions::Positions},
};

/// Frames that a tail reads at once; about one write.
const READ_FRAMES: usize = 64;

/// A buffer of frames, limited in bytes. When it is full the oldest frames are evicted; a tail that
/// had not read them learns how many lines they held.
///
/// A read takes one shared lock however many lines it returns. Tails need no queue and no copy.
pub(crate) struct Ring {
    inner: RwLock<Inner>,
    /// Index after the newest frame.
    end: watch::Sender<u64>,
    /// Highest index that any tail has reached.
    furthest: AtomicU64,
    limits: RingLimits,
    memory: MemoryBudget,
    clock: BusClock,
}

/// Limits of rings in bytes, including cached renderings.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RingLimits {
    /// Limit of one ring.
    pub(crate) own: usize,
    /// Limit of all rings. Above it, rings larger than `fair` evict frames.
    pub(crate) total: usize,
    /// Bytes that a ring may always keep, besides its newest frame.
    pub(crate) fair: usize,
}

struct Inner {
    frames: VecDeque<Arc<Frame>>,
    /// Index of the oldest frame.
    first: u64,
    evicted_lines: u64,
    held_lines: u64,
    /// Everything published since then is in the ring or will be.
    complete_from: PublishTime,
    positions: Positions,
    /// Cursor after the newest frame, created on first use.
    cursor: OnceLock<Arc<EncodedCursor>>,
}

/// A position between two frames, and the number of lines before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RingPosition {
    index: u64,
    lines: u64,
}

/// The result of reading from a position.
pub(crate) struct RingRead {
    /// Lines that were evicted before the tail read them.
    pub(crate) skipped: u64,
    /// Frames in order; empty at the end of the ring.
    pub(crate) frames: Vec<Arc<Frame>>,
    /// Position after the frames.
    pub(crate) position: RingPosition,
}

/// A copy of the ring's frames from some position to the end.
pub(crate) struct Contents {
    pub(crate) frames: Vec<Arc<Frame>>,
    /// Position after the frames.
    pub(crate) end: RingPosition,
    /// Everything published since then is in the whole ring or will be.
    pub(crate) complete_from: PublishTime,
}

impl Ring {
    /// Creates an empty ring for everything published from `since` on. `in_order`: the bus delivers
    /// in order of publish times.
    pub(crate) fn new(since: PublishTime, in_order: bool, limits: RingLimits, memory: MemoryBudget) -> Self {
        let inner = Inner {
            frames: VecDeque::new(),
            first: 0,
            evicted_lines: 0,
            held_lines: 0,
            complete_from: since,
            positions: Positions::new(since, in_order),
            cursor: OnceLock::new(),
        };
        Self {
            inner: RwLock::new(inner),
            end: watch::Sender::new(0),
            furthest: AtomicU64::new(0),
            limits,
            memory,
            clock: BusClock::at(since),
        }
    }

    /// Appends frames and wakes all tails once. `settled`: everything published before this is then
    /// in the ring.
    pub(crate) fn extend(&self, frames: impl IntoIterator<Item = Frame>, settled: Option<PublishTime>) {
        let mut inner = self.inner.write();
        for frame in frames {
            frame.charge.count_in(&self.memory);
            inner.positions.insert(&frame);
            inner.held_lines += frame.lines();
            inner.frames.push_back(Arc::new(frame));
        }
        if let Some(before) = settled {
            inner.positions.set_settled(before);
        }
        inner.cursor = OnceLock::new();
        while self.is_over_limit() && inner.frames.len() > 1 {
            inner.evict_oldest();
        }
        let end = inner.end().index;
        drop(inner);
        self.end.send_replace(end);
    }

    fn is_over_limit(&self) -> bool {
        let own = self.memory.own();
        own > self.limits.own || (own > self.limits.fair && self.memory.total() > self.limits.total)
    }

    /// Returns the position after the newest frame.
    pub(crate) fn end(&self) -> RingPosition {
        self.inner.read().end()
    }

    /// Returns the newest frames that hold `lines` lines. `None` if the ring holds fewer and older
    /// lines may exist.
    pub(crate) fn last_lines(&self, lines: u64) -> Option<Contents> {
        let inner = self.inner.read();
        if inner.held_lines < lines && inner.complete_from > PublishTime(0) {
            return None;
        }
        let mut found = 0;
        let wanted = inner.frames.iter().rev().take_while(|frame| {
            let more = found < lines;
            found += frame.lines();
            more
        });
        let count = wanted.count();
        Some(inner.contents(inner.frames.len() - count))
    }

    /// Returns all frames from a position on. `None` if frames after that position were evicted.
    pub(crate) fn since(&self, position: RingPosition) -> Option<Contents> {
        let inner = self.inner.read();
        let skip = position.index.checked_sub(inner.first)?;
        Some(inner.contents(usize::try_from(skip).unwrap_or(usize::MAX)))
    }

    /// Returns all frames.
    pub(crate) fn all(&self) -> Contents {
        self.inner.read().contents(0)
    }

    /// Returns the frames from a position on, at most [`READ_FRAMES`] of them.
    pub(crate) fn read(&self, from: RingPosition) -> RingRead {
        let inner = self.inner.read();
        let skip = from.index.saturating_sub(inner.first);
        let skipped = if from.index < inner.first {
            inner.evicted_lines.saturating_sub(from.lines)
        } else {
            0
        };
        let skip = usize::try_from(skip).unwrap_or(usize::MAX);
        let frames: Vec<_> = inner.frames.iter().skip(skip).take(READ_FRAMES).cloned().collect();
        let lines = from.lines + skipped + frames.iter().map(|frame| frame.lines()).sum::<u64>();
        let index = from.index.max(inner.first) + frames.len() as u64;
        self.furthest.fetch_max(index, Ordering::Relaxed);
        RingRead {
            skipped,
            frames,
            position: RingPosition { index, lines },
        }
    }

    /// Returns the highest frame index that any tail has reached.
    pub(crate) fn furthest(&self) -> u64 {
        self.furthest.load(Ordering::Relaxed)
    }

    /// Returns whether the ring is more than half full of frames that no tail has read.
    pub(crate) fn is_half_unread(&self) -> bool {
        let inner = self.inner.read();
        let unread = inner.end().index.saturating_sub(self.furthest().max(inner.first));
        self.memory.own() > self.limits.own / 2 && unread > inner.frames.len() as u64 / 2
    }

    /// Returns whether the ring has passed everything that a tail received from a history read or,
    /// before it resumed, from another replica.
    pub(crate) fn covers(&self, history: Option<&Delivered>, resumed: Option<&Delivered>) -> bool {
        self.inner.read().positions.covers(history, resumed)
    }

    /// Returns the cursor of a tail at this position. `None` unless the position is the end.
    pub(crate) fn cursor(&self, position: RingPosition) -> Option<Arc<EncodedCursor>> {
        let inner = self.inner.read();
        let encode = || {
            let text = inner.positions.cursor(self.now()).encode();
            let (sse_id, sse_event) = (sse::id(&text).into(), sse::cursor(&text).into());
            Arc::new(EncodedCursor {
                text,
                sse_id,
                sse_event,
            })
        };
        (inner.end() == position).then(|| Arc::clone(inner.cursor.get_or_init(encode)))
    }

    /// Records a time of the bus.
    pub(crate) fn record_time(&self, time: PublishTime) {
        self.clock.record(time);
    }

    /// Returns the time of the bus.
    pub(crate) fn now(&self) -> PublishTime {
        self.clock.now_or_zero()
    }

    /// Records that the bus has been disconnected since some time, or is connected again (`None`).
    /// While it is disconnected, cursors do not cover anything published since then.
    pub(crate) fn set_disconnected(&self, since: Option<PublishTime>) {
        let mut inner = self.inner.write();
        inner.positions.set_bus_lost(since);
        inner.cursor = OnceLock::new();
    }

    /// Records that batches published before this time may be missing from the ring.
    pub(crate) fn set_incomplete_before(&self, time: PublishTime) {
        let mut inner = self.inner.write();
        inner.complete_from = inner.complete_from.max(time);
    }

    /// Drops streams too old for any cursor. Call it periodically.
    pub(crate) fn forget(&self) {
        let now = self.now();
        let mut inner = self.inner.write();
        inner.positions.forget(now);
        inner.cursor = OnceLock::new();
    }

    /// Returns a receiver that is notified when frames are appended.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.end.subscribe()
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        let frames = &self.inner.get_mut().frames;
        frames.iter().for_each(|frame| frame.charge.release());
    }
}

impl Inner {
    fn end(&self) -> RingPosition {
        RingPosition {
            index: self.first + self.frames.len() as u64,
            lines: self.evicted_lines + self.held_lines,
        }
    }

    fn contents(&self, skip: usize) -> Contents {
        Contents {
            frames: self.frames.iter().skip(skip).cloned().collect(),
            end: self.end(),
            complete_from: self.complete_from,
        }
    }

    fn evict_oldest(&mut self) {
        let Some(evicted) = self.frames.pop_front() else { return };
        evicted.charge.release();
        self.first += 1;
        self.held_lines -= evicted.lines();
        self.evicted_lines += evicted.lines();
        if let Some(newest) = evicted.newest() {
            self.complete_from = self.complete_from.max(PublishTime(newest.0 + 1));
        }
    }
}
