//! What a drain reads from the bus, in order, with all that is to be said of it.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bus::{
    Ack, BusError, PublishTime, Reader, ReaderItem, StreamId, Timestamp,
    notice::{self, TRIBUTARY},
    reassembly::{Event, EventKind, GapTimeouts, Now, Reassembly, Receipt},
};
use tokio::time::{Instant, sleep_until};

use crate::{
    counts::Counts,
    queue::{Piece, Queue, Windows},
    render::{Header, Style, may_name_levels},
};

/// How long what comes behind a break is looked at before it is told how much is gone.
const LOOK_AT_BREAK: Duration = Duration::from_secs(1);

/// Streams whose headers are remembered.
const MAX_HEADERS: usize = 4096;

/// How often streams that are long over are forgotten.
const FORGET_EVERY: Duration = Duration::from_secs(60);

/// What a drain reads and holds.
pub(crate) struct Feed {
    reader: Reader,
    reassembly: Reassembly,
    begun: Instant,
    forgot: Instant,
    about: String,
    /// What was read and is not settled.
    pub(crate) queue: Queue,
    headers: HashMap<StreamId, Arc<Header>>,
    own: Arc<Header>,
    overflow: Option<Overflow>,
    /// What comes behind a break is missing because of it.
    broken: Option<(PublishTime, PublishTime)>,
    counts: Arc<Counts>,
}

/// What the bus no longer has for this drain, while it is looked at how much that is.
struct Overflow {
    from: PublishTime,
    to: PublishTime,
    lines: u64,
    until: Instant,
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
        lost: Option<(PublishTime, PublishTime)>,
    ) -> Self {
        let patience = if reader.in_order() {
            GapTimeouts::InOrder
        } else {
            GapTimeouts::Drain {
                ack_deadline: reader.ack_deadline(),
            }
        };
        let reassembly = Reassembly::new(patience, reader.since(), history);
        let now = Instant::now();
        let mut feed = Self {
            reader,
            reassembly,
            begun: now,
            forgot: now,
            about: drain.id.to_string(),
            own: Arc::new(style.own_header(&drain.app)),
            queue: Queue::new(style, window, windows, Arc::clone(&counts)),
            headers: HashMap::new(),
            overflow: None,
            broken: None,
            counts,
        };
        if let Some((from, to)) = lost {
            feed.broke(from, to);
        }
        feed
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
        while self.queue.has_room()
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
            .is_some_and(|overflow| overflow.until <= Instant::now() || !self.queue.has_room())
        {
            self.tell_overflow();
        }
        self.queue.tell_lag();
        Some(Ok(()))
    }

    fn now(&self) -> Now {
        Now {
            elapsed: self.begun.elapsed(),
            bus: PublishTime::now(),
        }
    }

    fn take(&mut self, item: ReaderItem) {
        match item {
            ReaderItem::Delivery(mut delivery) => {
                // A notice about this drain is not for it: it would make another.
                if delivery.batch.metadata.about.as_ref() == Some(&self.about) {
                    return delivery.ack.take().into_iter().for_each(Ack::ack);
                }
                let now = self.now();
                self.reassembly.push(delivery, now);
                self.take_events();
            }
            ReaderItem::Unreadable(unreadable) => {
                let text = notice::unreadable(&unreadable).text;
                self.say(&text, PublishTime::now(), None);
            }
            ReaderItem::Interrupted { from, to } => self.broke(from, to),
            ReaderItem::CaughtUp => {}
        }
    }

    fn broke(&mut self, from: PublishTime, to: PublishTime) {
        self.broken = Some((from, to));
        if self.queue.holds_back() {
            // Another, behind what has come since: each is told in its place.
            self.tell_overflow();
        }
        match &mut self.overflow {
            Some(overflow) => overflow.to = to,
            None => {
                self.queue.hold_here();
                self.overflow = Some(Overflow {
                    from,
                    to,
                    lines: 0,
                    until: Instant::now() + LOOK_AT_BREAK,
                });
            }
        }
    }

    fn take_events(&mut self) {
        while let Some(event) = self.reassembly.next_event() {
            let receipt = event.receipt();
            match &event.kind {
                EventKind::Lines { data, lines, .. } => {
                    let header = self.header(&event);
                    self.queue.push(Piece {
                        data: data.clone(),
                        lines: *lines,
                        tried: 0,
                        levels: may_name_levels(data),
                        counted: event.metadata.origin != TRIBUTARY,
                        header,
                        receipt: Some(receipt),
                        published: event.published,
                    });
                }
                EventKind::Gap { lines, gap: loss } => self.missing(&event, *lines, loss.as_ref(), receipt),
                EventKind::End => self.reassembly.acknowledge(&receipt),
            }
        }
    }

    fn missing(&mut self, event: &Event, lines: u64, loss: Option<&bus::Gap>, receipt: Receipt) {
        match (loss, self.broken, &mut self.overflow) {
            (None, Some(_), Some(overflow)) => overflow.lines += lines,
            (None, Some((from, _)), None) => {
                self.counts.note(|report| report.dropped += lines);
                self.say(&overflowed(lines, from, event.published), event.published, None);
            }
            (None, None, _) => {
                self.counts.note(|report| report.dropped += lines);
                let text = notice::gap(&event.metadata, event.seq, lines, None).text;
                self.say(&text, event.published, None);
            }
            (Some(loss), ..) => {
                let text = notice::gap(&event.metadata, event.seq, lines, Some(loss)).text;
                self.say(&text, event.published, Some(receipt));
            }
        }
    }

    fn tell_overflow(&mut self) {
        let Some(overflow) = self.overflow.take() else { return };
        self.counts.note(|report| report.dropped += overflow.lines);
        let text = overflowed(overflow.lines, overflow.from, overflow.to);
        let piece = self.told(&text, overflow.to, None);
        self.queue.insert_there(piece);
    }

    fn say(&mut self, text: &str, published: PublishTime, receipt: Option<Receipt>) {
        let piece = self.told(text, published, receipt);
        self.queue.push(piece);
    }

    fn told(&self, text: &str, published: PublishTime, receipt: Option<Receipt>) -> Piece {
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

    /// Settles the first pieces, so many since the connection began: the receiver has them, or will never. Returns how many lines that are somebody's they hold.
    pub(crate) fn settle(&mut self, pieces: u64) -> u64 {
        let reassembly = &mut self.reassembly;
        self.queue.settle(pieces, |receipt| reassembly.acknowledge(receipt))
    }

    fn header(&mut self, event: &Event) -> Arc<Header> {
        if let Some(header) = self.headers.get(&event.metadata.stream) {
            return Arc::clone(header);
        }
        if self.headers.len() >= MAX_HEADERS {
            self.headers.clear();
        }
        let header = Arc::new(self.queue.style().header(&event.metadata));
        self.headers.insert(event.metadata.stream.clone(), Arc::clone(&header));
        header
    }
}

/// *Source*: Heroku Dev Center, Error Codes: L10.
fn overflowed(lines: u64, from: PublishTime, to: PublishTime) -> String {
    let count = match lines {
        0 => "an unknown number of messages".to_owned(),
        1 => "1 message".to_owned(),
        n => format!("{n} messages"),
    };
    let (from, to) = (Timestamp::from(from), Timestamp::from(to));
    format!("Error L10 (output buffer overflow): {count} dropped since {from}, up to {to}: the bus no longer has them")
}
