//! What a drain holds: what waits to be sent, and what was sent and is not sure.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bus::{PublishTime, reassembly::Receipt};
use bytes::{Bytes, BytesMut};

use crate::{
    render::{Header, Style},
    stats::Counts,
};

/// What a drain may hold whatever all of them do: one batch.
const LEAST_BYTES: usize = bus::MAX_BATCH_BYTES;

/// What is read ahead of what is sent.
const AHEAD_BYTES: usize = 2 * bus::MAX_BATCH_BYTES;

/// What all drains hold together.
pub(crate) struct Windows {
    most: usize,
    held: AtomicUsize,
}

impl Windows {
    pub(crate) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            most,
            held: AtomicUsize::new(0),
        })
    }

    pub(crate) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Whether who holds something in vain had better give it back to the bus.
    pub(crate) fn are_scarce(&self) -> bool {
        self.held() > self.most / 2
    }
}

/// What a drain holds, in the order in which it is sent.
pub(crate) struct Queue {
    style: Style,
    pieces: VecDeque<Piece>,
    /// How many pieces were taken out in front, since the connection began.
    taken: u64,
    place: Place,
    /// Where the last frame began.
    frame: Place,
    /// Where rendering stops until it is known what is to be said there.
    stop_at: Option<usize>,
    /// Lines that wait to be rendered, and bytes of the pieces that they are in.
    unsent: u64,
    ahead: usize,
    held: usize,
    window: usize,
    windows: Arc<Windows>,
    counts: Arc<Counts>,
}

/// Where rendering is.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Place {
    /// Pieces before it are rendered wholly.
    piece: usize,
    /// Bytes and lines of that piece that are.
    bytes: usize,
    lines: u64,
}

/// Lines that are settled together.
pub(crate) struct Piece {
    pub(crate) data: Bytes,
    pub(crate) lines: u64,
    /// How many lines of it were rendered ever.
    pub(crate) tried: u64,
    pub(crate) header: Arc<Header>,
    pub(crate) levels: bool,
    pub(crate) receipt: Option<Receipt>,
    pub(crate) published: PublishTime,
    /// Whether these are somebody's lines, and not what is said of them.
    pub(crate) counted: bool,
}

/// What was rendered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rendered {
    pub(crate) messages: usize,
    /// Somebody's, in full.
    pub(crate) lines: u64,
    /// Of those, the ones that were rendered before.
    pub(crate) again: u64,
}

impl Rendered {
    fn add(&mut self, other: Self) {
        self.messages += other.messages;
        self.lines += other.lines;
        self.again += other.again;
    }
}

impl Queue {
    /// An empty one, that may hold so many bytes of what all may.
    pub(crate) fn new(style: Style, window: usize, windows: Arc<Windows>, counts: Arc<Counts>) -> Self {
        Self {
            style,
            pieces: VecDeque::new(),
            taken: 0,
            place: Place::default(),
            frame: Place::default(),
            stop_at: None,
            unsent: 0,
            ahead: 0,
            held: 0,
            window,
            windows,
            counts,
        }
    }

    /// How its messages look.
    pub(crate) fn style(&self) -> &Style {
        &self.style
    }

    /// Whether more may be held.
    pub(crate) fn has_room(&self) -> bool {
        let all = self.windows.held.load(Ordering::Relaxed);
        let most = if all < self.windows.most {
            self.window
        } else {
            LEAST_BYTES
        };
        // What is not sent yet the bus keeps as well.
        self.held < most && self.ahead < AHEAD_BYTES
    }

    /// Whether there is something to be rendered.
    pub(crate) fn has_more(&self) -> bool {
        self.place.piece < self.end()
    }

    /// Tells how much waits, and since when.
    pub(crate) fn tell_lag(&self) {
        let published = |piece: &Piece| piece.published;
        let unsent = self.pieces.get(self.place.piece).map(published);
        self.counts
            .waits(self.unsent, unsent, self.pieces.front().map(published));
    }

    fn count_unsent(&mut self) {
        let waiting = self.pieces.range(self.place.piece.min(self.pieces.len())..);
        self.ahead = waiting.clone().map(|piece| piece.data.len()).sum();
        self.unsent = waiting
            .map(|piece| piece.lines)
            .sum::<u64>()
            .saturating_sub(self.place.lines);
    }

    /// Takes lines that come behind all others.
    pub(crate) fn push(&mut self, piece: Piece) {
        self.hold(&piece);
        self.pieces.push_back(piece);
    }

    fn hold(&mut self, piece: &Piece) {
        self.unsent += piece.lines;
        self.ahead += piece.data.len();
        self.held += piece.data.len();
        self.windows.held.fetch_add(piece.data.len(), Ordering::Relaxed);
    }

    /// Renders nothing from here on, until it is said what stands here.
    pub(crate) fn hold_here(&mut self) {
        self.stop_at.get_or_insert(self.pieces.len());
    }

    /// Whether something stands behind where rendering stops.
    pub(crate) fn holds_back(&self) -> bool {
        self.stop_at.is_some_and(|at| at < self.pieces.len())
    }

    /// Says it, and lets go.
    pub(crate) fn insert_there(&mut self, piece: Piece) {
        if let Some(at) = self.stop_at.take() {
            self.hold(&piece);
            self.pieces.insert(at.min(self.pieces.len()), piece);
        }
    }

    /// Up to where may be rendered.
    fn end(&self) -> usize {
        self.stop_at.map_or(self.pieces.len(), |at| at.min(self.pieces.len()))
    }

    /// Begins anew with what is not settled: for a new connection.
    pub(crate) fn rewind(&mut self) {
        (self.place, self.taken) = (Place::default(), 0);
        self.count_unsent();
    }

    /// How many pieces are rendered wholly, since the connection began.
    pub(crate) fn rendered(&self) -> u64 {
        self.taken + self.place.piece as u64
    }

    /// Renders what waits, in order, until `out` holds about `bytes`.
    pub(crate) fn render(&mut self, out: &mut BytesMut, bytes: usize) -> Rendered {
        let mut all = Rendered::default();
        while out.len() < bytes && self.has_more() {
            all.add(self.render_line(out, &mut |_| ()));
        }
        self.note(all)
    }

    fn take_back_to(&mut self, place: Place) {
        self.place = place;
        self.count_unsent();
    }

    /// Renders the last frame's lines anew, into others.
    pub(crate) fn take_back(&mut self) {
        self.take_back_to(self.frame);
    }

    /// Renders the next line, into as many messages as it needs, each of its own.
    pub(crate) fn render_messages(&mut self, messages: &mut Vec<Bytes>) -> Rendered {
        let mut out = BytesMut::new();
        let all = self.render_line(&mut out, &mut |out| messages.push(out.split().freeze()));
        self.note(all)
    }

    /// The same, until `out` holds no more than `bytes`, or one line, and no more than `messages`, or those of one line.
    pub(crate) fn render_frame(&mut self, out: &mut BytesMut, bytes: usize, messages: usize) -> Rendered {
        let (mut all, from) = (Rendered::default(), out.len());
        self.frame = self.place;
        while all.messages < messages && self.has_more() {
            let (before, place) = (out.len(), self.place);
            let tried = self.pieces.get(place.piece).map(|piece| piece.tried);
            let one = self.render_line(out, &mut |_| ());
            let is_first = all.messages == 0;
            if !is_first && (out.len() - from > bytes || all.messages + one.messages > messages) {
                out.truncate(before);
                self.take_back_to(place);
                // It was not sent.
                if let (Some(piece), Some(tried)) = (self.pieces.get_mut(place.piece), tried) {
                    piece.tried = tried;
                }
                break;
            }
            all.add(one);
        }
        self.note(all)
    }

    fn note(&self, rendered: Rendered) -> Rendered {
        if rendered.again > 0 {
            self.counts.note(|report| report.resent += rendered.again);
        }
        rendered
    }

    fn render_line(&mut self, out: &mut BytesMut, done: &mut impl FnMut(&mut BytesMut)) -> Rendered {
        let place = &mut self.place;
        let Some(piece) = self.pieces.get_mut(place.piece) else {
            return Rendered::default();
        };
        let rest = &piece.data[place.bytes..];
        let end = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
        let mut messages = 0;
        self.style.line(out, &piece.header, piece.levels, &rest[..end], |out| {
            messages += 1;
            done(out);
        });
        (place.bytes, place.lines) = (place.bytes + end + 1, place.lines + 1);
        let counted = u64::from(piece.counted);
        self.unsent = self.unsent.saturating_sub(1);
        let mut again = 0;
        if place.lines > piece.tried {
            piece.tried = place.lines;
        } else {
            again = counted;
        }
        if place.bytes >= piece.data.len() {
            self.ahead = self.ahead.saturating_sub(piece.data.len());
            *place = Place {
                piece: place.piece + 1,
                ..Place::default()
            };
        }
        Rendered {
            messages,
            lines: counted,
            again,
        }
    }

    /// Takes out the first pieces, so many since the connection began: the receiver has them, or will never. Returns how many lines that are somebody's they hold.
    pub(crate) fn settle(&mut self, pieces: u64, mut settled: impl FnMut(&Receipt)) -> u64 {
        let mut lines = 0;
        while self.taken < pieces
            && let Some(piece) = self.pieces.pop_front()
        {
            self.taken += 1;
            self.place.piece = self.place.piece.saturating_sub(1);
            self.stop_at = self.stop_at.map(|at| at.saturating_sub(1));
            self.held -= piece.data.len();
            self.windows.held.fetch_sub(piece.data.len(), Ordering::Relaxed);
            if let Some(receipt) = &piece.receipt {
                settled(receipt);
            }
            if piece.counted {
                lines += piece.lines;
            }
        }
        self.tell_lag();
        lines
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.windows.held.fetch_sub(self.held, Ordering::Relaxed);
    }
}
