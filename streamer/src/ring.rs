//! The newest frames of an app, for any number of cursors.

use std::{
    collections::VecDeque,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use bus::PublishTime;
use parking_lot::RwLock;
use tokio::sync::watch;

use crate::{charge::Kept, format::sse, frame::Frame, ledger::Ledger, piece::Piece, settled::Settled};

/// Frames a reader takes at once: what one write can carry.
const TAKE_FRAMES: usize = 64;

/// Bounded in bytes: the oldest frames go, and a reader that still wanted them is told how many lines they had.
///
/// One lock for a look, however many lines; no queue and no copy for a reader.
pub(crate) struct Ring {
    inner: RwLock<Inner>,
    /// The position behind the newest frame. Closed when the ring will get no more.
    end: watch::Sender<u64>,
    /// The furthest position that any reader has got to.
    furthest: AtomicU64,
    bounds: Bounds,
    kept: Kept,
}

/// How many bytes rings may keep: their lines, and the renderings of those.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// One.
    pub(crate) own: usize,
    /// All together. Above it, those go first that keep more than `fair`.
    pub(crate) all: usize,
    /// What each may keep whatever the others do, beside its newest frame.
    pub(crate) fair: usize,
}

struct Inner {
    frames: VecDeque<Arc<Frame>>,
    /// The position of the oldest frame.
    first: u64,
    /// Lines of all frames that are gone.
    lines_gone: u64,
    /// Lines of all frames that are here.
    lines_here: u64,
    /// All that the bus took since then is here, or will be.
    complete_from: PublishTime,
    ledger: Ledger,
    /// The cursor behind the newest frame, once somebody asked for it.
    cursor: OnceLock<Arc<Mark>>,
}

/// A cursor, written once for all who are there.
pub(crate) struct Mark {
    /// As text.
    pub(crate) cursor: String,
    /// As an event stream's id.
    pub(crate) id: Piece,
}

/// A place between two frames, and how many lines lie before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    position: u64,
    lines: u64,
}

/// What a reader finds.
pub(crate) struct Taken {
    /// Lines that went before the reader came for them.
    pub(crate) missed: u64,
    /// Frames, in order; none when the reader is at the end.
    pub(crate) frames: Vec<Arc<Frame>>,
    /// Behind them.
    pub(crate) place: Place,
}

/// What is here.
pub(crate) struct Contents {
    /// The frames from some place on.
    pub(crate) frames: Vec<Arc<Frame>>,
    /// Behind them.
    pub(crate) end: Place,
    /// All that the bus took since then is among the ring's frames, or will be.
    pub(crate) complete_from: PublishTime,
}

impl Ring {
    /// An empty one, of all that the bus takes from `since` on.
    pub(crate) fn new(since: PublishTime, bounds: Bounds, kept: Kept) -> Self {
        let inner = Inner {
            frames: VecDeque::new(),
            first: 0,
            lines_gone: 0,
            lines_here: 0,
            complete_from: since,
            ledger: Ledger::new(since),
            cursor: OnceLock::new(),
        };
        Self {
            inner: RwLock::new(inner),
            end: watch::Sender::new(0),
            furthest: AtomicU64::new(0),
            bounds,
            kept,
        }
    }

    /// Adds frames and wakes the readers, once for all of them.
    pub(crate) fn extend(&self, frames: impl IntoIterator<Item = Frame>) {
        let mut inner = self.inner.write();
        for frame in frames {
            frame.charge.keep(&self.kept);
            inner.ledger.insert(&frame);
            inner.lines_here += frame.lines();
            inner.frames.push_back(Arc::new(frame));
        }
        inner.cursor = OnceLock::new();
        while self.is_over() && inner.frames.len() > 1 {
            inner.let_oldest_go();
        }
        let end = inner.end().position;
        drop(inner);
        self.end.send_replace(end);
    }

    fn is_over(&self) -> bool {
        let own = self.kept.own();
        own > self.bounds.own || (own > self.bounds.fair && self.kept.all() > self.bounds.all)
    }

    /// The place behind the newest frame.
    pub(crate) fn end(&self) -> Place {
        self.inner.read().end()
    }

    /// The newest frames that hold so many lines, where the ring still has so many, or ever had all.
    pub(crate) fn last_lines(&self, lines: u64) -> Option<Contents> {
        let inner = self.inner.read();
        if inner.lines_here < lines && inner.complete_from > PublishTime(0) {
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

    /// All frames from a place on. `None` where the ring's oldest lies behind it.
    pub(crate) fn since(&self, place: Place) -> Option<Contents> {
        let inner = self.inner.read();
        let skip = place.position.checked_sub(inner.first)?;
        Some(inner.contents(usize::try_from(skip).unwrap_or(usize::MAX)))
    }

    /// All frames.
    pub(crate) fn all(&self) -> Contents {
        self.inner.read().contents(0)
    }

    /// The frames from a place on, as many as go into one write.
    pub(crate) fn take(&self, from: Place) -> Taken {
        let inner = self.inner.read();
        let skip = from.position.saturating_sub(inner.first);
        let missed = if from.position < inner.first {
            inner.lines_gone.saturating_sub(from.lines)
        } else {
            0
        };
        let skip = usize::try_from(skip).unwrap_or(usize::MAX);
        let frames: Vec<_> = inner.frames.iter().skip(skip).take(TAKE_FRAMES).cloned().collect();
        let lines = from.lines + missed + frames.iter().map(|frame| frame.lines()).sum::<u64>();
        let position = from.position.max(inner.first) + frames.len() as u64;
        self.furthest.fetch_max(position, Ordering::Relaxed);
        Taken {
            missed,
            frames,
            place: Place { position, lines },
        }
    }

    /// The furthest position that any reader has got to.
    pub(crate) fn furthest(&self) -> u64 {
        self.furthest.load(Ordering::Relaxed)
    }

    /// Whether even the fastest reader has yet to take half of what fits here.
    pub(crate) fn is_ahead_of_all(&self) -> bool {
        let inner = self.inner.read();
        let waiting = inner.end().position.saturating_sub(self.furthest().max(inner.first));
        self.kept.own() > self.bounds.own / 2 && waiting > inner.frames.len() as u64 / 2
    }

    /// Whether all has come that a reader had from a read-back, or from another replica.
    pub(crate) fn has(&self, read_back: Option<&Settled>, resumed: Option<&Settled>) -> bool {
        self.inner.read().ledger.has(read_back, resumed)
    }

    /// The cursor of a reader that is at this place, where that is the end.
    pub(crate) fn cursor(&self, place: Place) -> Option<Arc<Mark>> {
        let inner = self.inner.read();
        let mark = || {
            let cursor = inner.ledger.cursor(PublishTime::now()).encode();
            let id = sse::id(&cursor).into();
            Arc::new(Mark { cursor, id })
        };
        (inner.end() == place).then(|| Arc::clone(inner.cursor.get_or_init(mark)))
    }

    /// The bus is not heard any more (then since when), or is again: until then no cursor claims what came meanwhile.
    pub(crate) fn hear(&self, lost: Option<PublishTime>) {
        let mut inner = self.inner.write();
        inner.ledger.hear(lost);
        inner.cursor = OnceLock::new();
    }

    /// Of what the bus took before this, some is missing.
    pub(crate) fn is_broken_before(&self, time: PublishTime) {
        let mut inner = self.inner.write();
        inner.complete_from = inner.complete_from.max(time);
    }

    /// Forgets what no cursor will name, and makes the next cursor anew. Call it now and then.
    pub(crate) fn forget(&self, now: PublishTime) {
        let mut inner = self.inner.write();
        inner.ledger.forget(now);
        inner.cursor = OnceLock::new();
    }

    /// Tells when something is added.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.end.subscribe()
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        let frames = &self.inner.get_mut().frames;
        frames.iter().for_each(|frame| frame.charge.let_go());
    }
}

impl Inner {
    fn end(&self) -> Place {
        Place {
            position: self.first + self.frames.len() as u64,
            lines: self.lines_gone + self.lines_here,
        }
    }

    fn contents(&self, skip: usize) -> Contents {
        Contents {
            frames: self.frames.iter().skip(skip).cloned().collect(),
            end: self.end(),
            complete_from: self.complete_from,
        }
    }

    fn let_oldest_go(&mut self) {
        let Some(gone) = self.frames.pop_front() else { return };
        gone.charge.let_go();
        self.first += 1;
        self.lines_here -= gone.lines();
        self.lines_gone += gone.lines();
        if let Some(newest) = gone.newest() {
            self.complete_from = self.complete_from.max(PublishTime(newest.0 + 1));
        }
    }
}
