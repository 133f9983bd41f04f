//! The newest frames of an app, for any number of cursors.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use parking_lot::RwLock;
use tokio::sync::watch;

use crate::frame::Frame;

/// Frames a cursor takes at once: what one write can carry.
const TAKE_FRAMES: usize = 64;

/// Bounded in bytes: the oldest frames go, and a cursor that still wanted them is told how many lines they had.
///
/// One lock for a look, however many lines; no queue and no copy for a reader.
pub(crate) struct Ring {
    inner: RwLock<Inner>,
    /// The position behind the newest frame. Closed when the ring will get no more.
    end: watch::Sender<u64>,
    max_bytes: usize,
}

struct Inner {
    frames: VecDeque<Arc<Frame>>,
    /// The position of the oldest frame.
    first: u64,
    /// Lines of all frames that are gone.
    lines_gone: u64,
    /// Lines of all frames that are here.
    lines_here: u64,
    bytes: usize,
}

/// A place between two frames, and how many lines lie before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    position: u64,
    lines: u64,
}

/// What a cursor finds.
pub(crate) struct Taken {
    /// Lines that went before the cursor came for them.
    pub(crate) missed: u64,
    /// Frames, in order; none when the cursor is at the end.
    pub(crate) frames: Vec<Arc<Frame>>,
    /// Behind them.
    pub(crate) place: Place,
}

impl Ring {
    /// An empty one that keeps up to so many bytes, and at least its newest frame.
    pub(crate) fn new(max_bytes: usize) -> Self {
        let inner = Inner {
            frames: VecDeque::new(),
            first: 0,
            lines_gone: 0,
            lines_here: 0,
            bytes: 0,
        };
        Self {
            inner: RwLock::new(inner),
            end: watch::Sender::new(0),
            max_bytes,
        }
    }

    /// Adds frames and wakes the readers, once for all of them.
    pub(crate) fn extend(&self, frames: Vec<Frame>) {
        let mut inner = self.inner.write();
        for frame in frames {
            inner.bytes += frame.text.len();
            inner.lines_here += frame.lines();
            inner.frames.push_back(Arc::new(frame));
        }
        while inner.bytes > self.max_bytes && inner.frames.len() > 1 {
            let Some(gone) = inner.frames.pop_front() else { break };
            inner.first += 1;
            inner.bytes -= gone.text.len();
            inner.lines_here -= gone.lines();
            inner.lines_gone += gone.lines();
        }
        let end = inner.end().position;
        drop(inner);
        self.end.send_replace(end);
    }

    /// The place behind the newest frame.
    pub(crate) fn end(&self) -> Place {
        self.inner.read().end()
    }

    /// The last `lines` lines and the place behind them, where the ring still has so many.
    pub(crate) fn last_lines(&self, lines: u64) -> Option<(Vec<Bytes>, Place)> {
        let inner = self.inner.read();
        if inner.lines_here < lines {
            return None;
        }
        let mut wanted = lines;
        let mut texts = Vec::new();
        for frame in inner.frames.iter().rev() {
            if wanted == 0 {
                break;
            }
            let here = frame.lines();
            texts.push(if here <= wanted {
                frame.text.clone()
            } else {
                frame.last_lines(wanted)
            });
            wanted -= here.min(wanted);
        }
        texts.reverse();
        Some((texts, inner.end()))
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
        Taken {
            missed,
            frames,
            place: Place { position, lines },
        }
    }

    /// Tells when something is added.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.end.subscribe()
    }
}

impl Inner {
    fn end(&self) -> Place {
        Place {
            position: self.first + self.frames.len() as u64,
            lines: self.lines_gone + self.lines_here,
        }
    }
}
