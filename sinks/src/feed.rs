//! What a drain reads from the bus, in order, and holds until its receiver has it for sure.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bus::{
    Ack, BusError, Item, Origin, Published, Reader, StreamId, Timestamp,
    notice::{self, TRIBUTARY},
    reassembly::{Event, Moment, Patience, Reassembly, Receipt, What},
};
use bytes::{Bytes, BytesMut};
use tokio::time::{Instant, sleep_until};

use crate::{
    counts::Counts,
    render::{Header, Style, may_name_levels},
};

/// How long what comes behind a break is looked at before it is told how much is gone.
const LOOK_AT_BREAK: Duration = Duration::from_secs(1);

/// What a drain may hold whatever all of them do: one batch.
const LEAST_BYTES: usize = bus::MAX_BATCH_BYTES;

/// What is read ahead of what is sent.
const AHEAD_BYTES: usize = 2 * bus::MAX_BATCH_BYTES;

/// Streams whose headers are remembered.
const MAX_HEADERS: usize = 4096;

/// How often streams that are long over are forgotten.
const FORGET_EVERY: Duration = Duration::from_secs(60);

/// Of the subscription: how long the service waits for an ack before it delivers again.
const ACK_DEADLINE: Duration = Duration::from_secs(60);

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

/// What a drain reads and holds.
pub(crate) struct Feed {
    reader: Reader,
    reassembly: Reassembly,
    begun: Instant,
    forgot: Instant,
    about: String,
    style: Style,
    headers: HashMap<StreamId, Arc<Header>>,
    own: Arc<Header>,
    pieces: VecDeque<Piece>,
    /// How many pieces were taken out in front, since the connection began.
    taken: u64,
    place: Place,
    /// Where the last frame began.
    frame: Place,
    /// Lines that wait to be rendered, and bytes of the pieces that they are in.
    unsent: u64,
    ahead: usize,
    held: usize,
    window: usize,
    windows: Arc<Windows>,
    overflow: Option<Overflow>,
    /// What comes behind a break is missing because of it.
    broken: Option<(Published, Published)>,
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
struct Piece {
    data: Bytes,
    lines: u64,
    /// How many lines of it were rendered ever.
    tried: u64,
    header: Arc<Header>,
    levels: bool,
    receipt: Option<Receipt>,
    published: Published,
    /// Whether these are somebody's lines, and not what is said of them.
    counted: bool,
}

/// What the bus no longer has for this drain, while it is looked at how much that is.
struct Overflow {
    from: Published,
    to: Published,
    lines: u64,
    /// Where it is to be told.
    piece: usize,
    until: Instant,
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

impl Feed {
    /// What this reader delivers, for this drain. `lost`: the span that the bus no longer has, where that is known at the start.
    pub(crate) fn new(
        reader: Reader,
        drain: &registry::Drain,
        style: Style,
        history: Duration,
        (window, windows): (usize, Arc<Windows>),
        counts: Arc<Counts>,
        lost: Option<(Published, Published)>,
    ) -> Option<Self> {
        let patience = if reader.in_order() {
            Patience::InOrder
        } else {
            Patience::Drain {
                ack_deadline: ACK_DEADLINE,
            }
        };
        let reassembly = Reassembly::new(patience, reader.since(), history);
        // What we say ourselves into a drain belongs to no stream of the bus.
        let own = Origin {
            app: drain.app.parse().ok()?,
            process: TRIBUTARY.to_owned(),
            stream: StreamId::new("sinks", "drain", "own", bus::Epoch::default()).ok()?,
            node: TRIBUTARY.to_owned(),
            source: TRIBUTARY.to_owned(),
            fd: None,
            about: None,
        };
        let now = Instant::now();
        let mut feed = Self {
            reader,
            reassembly,
            begun: now,
            forgot: now,
            about: drain.id.to_string(),
            own: Arc::new(style.header(&own)),
            style,
            headers: HashMap::new(),
            pieces: VecDeque::new(),
            taken: 0,
            place: Place::default(),
            frame: Place::default(),
            unsent: 0,
            ahead: 0,
            held: 0,
            window,
            windows,
            overflow: None,
            broken: None,
            counts,
        };
        if let Some((from, to)) = lost {
            feed.broke(from, to);
        }
        Some(feed)
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
    fn tell_lag(&self) {
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

    /// Reads on: returns once something has happened.
    ///
    /// *Cancel safety*: nothing is lost when the call is dropped.
    ///
    /// # Errors
    /// The bus's. `None`: it closed, or the app is gone.
    pub(crate) async fn fill(&mut self) -> Option<Result<(), BusError>> {
        let due = self.reassembly.deadline().map(|due| self.begun + due);
        let due = due
            .into_iter()
            .chain(self.overflow.as_ref().map(|overflow| overflow.until))
            .min();
        let reached = async {
            match due {
                Some(due) => sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            item = self.reader.next() => match item? {
                Ok(item) => self.take(item),
                Err(error) => return Some(Err(error)),
            },
            () = reached => {}
        }
        while self.has_room()
            && let Some(item) = self.reader.try_next()
        {
            match item {
                Ok(item) => self.take(item),
                Err(error) => return Some(Err(error)),
            }
        }
        let now = self.now();
        self.reassembly.declare_due(now);
        self.take_events();
        if self.forgot.elapsed() > FORGET_EVERY {
            self.forgot = Instant::now();
            self.reassembly.forget(now.bus);
        }
        if self
            .overflow
            .as_ref()
            .is_some_and(|overflow| overflow.until <= Instant::now() || !self.has_room())
        {
            self.tell_overflow();
        }
        self.tell_lag();
        Some(Ok(()))
    }

    fn now(&self) -> Moment {
        Moment {
            elapsed: self.begun.elapsed(),
            bus: Published::now(),
        }
    }

    fn take(&mut self, item: Item) {
        match item {
            Item::Delivery(mut delivery) => {
                // A notice about this drain is not for it: it would make another.
                if delivery.batch.origin.about.as_ref() == Some(&self.about) {
                    return delivery.ack.take().into_iter().for_each(Ack::accept);
                }
                let now = self.now();
                self.reassembly.push(delivery, now);
                self.take_events();
            }
            Item::Unreadable(unreadable) => {
                let text = notice::unreadable(&unreadable).text;
                self.say(&text, Published::now(), None);
            }
            Item::Break { from, to } => self.broke(from, to),
            Item::CaughtUp => {}
        }
    }

    fn broke(&mut self, from: Published, to: Published) {
        self.broken = Some((from, to));
        match &mut self.overflow {
            Some(overflow) => overflow.to = to,
            None => {
                self.overflow = Some(Overflow {
                    from,
                    to,
                    lines: 0,
                    piece: self.pieces.len(),
                    until: Instant::now() + LOOK_AT_BREAK,
                });
            }
        }
    }

    fn take_events(&mut self) {
        while let Some(event) = self.reassembly.next_event() {
            let receipt = event.receipt();
            match &event.what {
                What::Lines { data, lines, .. } => {
                    let header = self.header(&event);
                    self.push(Piece {
                        data: data.clone(),
                        lines: *lines,
                        tried: 0,
                        levels: may_name_levels(data),
                        counted: event.origin.source != TRIBUTARY,
                        header,
                        receipt: Some(receipt),
                        published: event.published,
                    });
                }
                What::Gap { lines, loss } => self.missing(&event, *lines, loss.as_ref(), receipt),
                What::End => self.reassembly.acknowledge(&receipt),
            }
        }
    }

    fn missing(&mut self, event: &Event, lines: u64, loss: Option<&bus::Loss>, receipt: Receipt) {
        match (loss, self.broken, &mut self.overflow) {
            (None, Some(_), Some(overflow)) => overflow.lines += lines,
            (None, Some((from, _)), None) => {
                self.counts.note(|report| report.dropped += lines);
                self.say(&overflowed(lines, from, event.published), event.published, None);
            }
            (None, None, _) => {
                self.counts.note(|report| report.dropped += lines);
                let text = notice::gap(&event.origin, event.seq, lines, None).text;
                self.say(&text, event.published, None);
            }
            (Some(loss), ..) => {
                let text = notice::gap(&event.origin, event.seq, lines, Some(loss)).text;
                self.say(&text, event.published, Some(receipt));
            }
        }
    }

    fn tell_overflow(&mut self) {
        let Some(overflow) = self.overflow.take() else { return };
        self.counts.note(|report| report.dropped += overflow.lines);
        let text = overflowed(overflow.lines, overflow.from, overflow.to);
        let piece = self.told(&text, overflow.to, None);
        self.hold(&piece);
        self.pieces.insert(overflow.piece.min(self.pieces.len()), piece);
    }

    fn say(&mut self, text: &str, published: Published, receipt: Option<Receipt>) {
        let piece = self.told(text, published, receipt);
        self.push(piece);
    }

    fn told(&self, text: &str, published: Published, receipt: Option<Receipt>) -> Piece {
        Piece {
            data: format!("{} {text}\n", Timestamp::now()).into(),
            lines: 1,
            tried: 0,
            header: Arc::clone(&self.own),
            levels: false,
            receipt,
            published,
            counted: false,
        }
    }

    fn push(&mut self, piece: Piece) {
        self.hold(&piece);
        self.pieces.push_back(piece);
    }

    fn hold(&mut self, piece: &Piece) {
        self.unsent += piece.lines;
        self.ahead += piece.data.len();
        self.held += piece.data.len();
        self.windows.held.fetch_add(piece.data.len(), Ordering::Relaxed);
    }

    fn header(&mut self, event: &Event) -> Arc<Header> {
        if let Some(header) = self.headers.get(&event.origin.stream) {
            return Arc::clone(header);
        }
        if self.headers.len() >= MAX_HEADERS {
            self.headers.clear();
        }
        let header = Arc::new(self.style.header(&event.origin));
        self.headers.insert(event.origin.stream.clone(), Arc::clone(&header));
        header
    }

    /// Up to where may be rendered.
    fn end(&self) -> usize {
        self.overflow
            .as_ref()
            .map_or(self.pieces.len(), |overflow| overflow.piece.min(self.pieces.len()))
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
            let one = self.render_line(out, &mut |_| ());
            let is_first = all.messages == 0;
            if !is_first && (out.len() - from > bytes || all.messages + one.messages > messages) {
                out.truncate(before);
                self.take_back_to(place);
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

    /// Settles the first pieces, so many since the connection began: the receiver has them, or will never. Returns how many lines that are somebody's they hold.
    pub(crate) fn settle(&mut self, pieces: u64) -> u64 {
        let mut lines = 0;
        while self.taken < pieces
            && let Some(piece) = self.pieces.pop_front()
        {
            self.taken += 1;
            self.place.piece = self.place.piece.saturating_sub(1);
            if let Some(overflow) = &mut self.overflow {
                overflow.piece = overflow.piece.saturating_sub(1);
            }
            self.held -= piece.data.len();
            self.windows.held.fetch_sub(piece.data.len(), Ordering::Relaxed);
            if let Some(receipt) = &piece.receipt {
                self.reassembly.acknowledge(receipt);
            }
            if piece.counted {
                lines += piece.lines;
            }
        }
        self.tell_lag();
        lines
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.windows.held.fetch_sub(self.held, Ordering::Relaxed);
    }
}

/// *Source*: Heroku Dev Center, Error Codes: L10.
fn overflowed(lines: u64, from: Published, to: Published) -> String {
    let count = match lines {
        0 => "an unknown number of messages".to_owned(),
        1 => "1 message".to_owned(),
        n => format!("{n} messages"),
    };
    let (from, to) = (Timestamp::from(from), Timestamp::from(to));
    format!("Error L10 (output buffer overflow): {count} dropped since {from}, up to {to}: the bus no longer has them")
}
