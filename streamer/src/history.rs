//! Reads back from the bus what the ring does not have.

use std::{sync::Arc, time::Duration};

use bus::{
    AppName, Bus, BusError, Delivery, PublishTime, Reader, ReaderItem, Start,
    cursor::StreamKey,
    notice,
    reassembly::{Now, Reassembly},
};
use tokio::time::Instant;

use crate::{
    charge::Kept,
    config::Config,
    filter::Filter,
    frame::{Frame, Told},
    gather::Gather,
    hub::patience,
    ring::Place,
    settled::Settled,
};

/// How far back is looked first, and then, while too few lines are found.
const REACHES: [Duration; 3] = [
    Duration::from_secs(60),
    Duration::from_secs(10 * 60),
    Duration::from_secs(2 * 3600),
];

/// How long is waited, behind the end of what was there, for what is missing in it.
const HOLES_WAIT: Duration = Duration::from_secs(1);

/// What is missing then is looked for from so long before the reading began: what is published while a subscription is made and set back in time can be missing from it.
const AROUND: Duration = Duration::from_secs(10);

/// Who wants more lines than this is hardly served by a short look first.
const MANY_LINES: u64 = 100_000;

/// Lines gathered beyond those wanted before the surplus is let go.
const SURPLUS_LINES: u64 = 50_000;

/// What a read-back is for.
pub(crate) struct Want {
    /// So many lines at least, where there are so many; the newest.
    pub(crate) lines: u64,
    /// Nothing that the bus took before this.
    pub(crate) since: Option<PublishTime>,
    /// Only these. `None`: what is read may serve others too, and is kept beyond `lines` while it is small.
    pub(crate) filter: Option<Arc<Filter>>,
}

impl Want {
    /// How far back is looked at most.
    fn farthest(&self) -> Start {
        self.since.map_or(Start::Oldest, Start::At)
    }
}

/// What a read-back may hold, and where it counts what it brings.
pub(crate) struct Room {
    /// Batches, and what is kept a line.
    pub(crate) bytes: usize,
    /// All that is held of history.
    pub(crate) kept: Kept,
}

/// What a read-back brought.
#[derive(Default)]
pub(crate) struct Past {
    /// What is to be said before it.
    pub(crate) told: Vec<Told>,
    /// The lines, oldest first.
    pub(crate) frames: Vec<Arc<Frame>>,
    /// All that was read, shown or not: what of the live stream is no news.
    pub(crate) settled: Settled,
    /// All that the bus took since then, and the filter takes, is here; 0: all there ever was. `None` where it was cut.
    pub(crate) complete_from: Option<PublishTime>,
    /// How far back was read.
    pub(crate) reached: PublishTime,
    /// There was more than may be held at once.
    pub(crate) cut: bool,
}

/// A read-back that a hub keeps for those who come next.
pub(crate) struct Shared {
    pub(crate) past: Past,
    /// Where the ring was when it began.
    pub(crate) place: Place,
    /// When it was done.
    pub(crate) made: Instant,
}

impl Past {
    /// Bytes that it holds.
    pub(crate) fn bytes(&self) -> usize {
        self.frames.iter().map(|frame| frame.charge.own()).sum()
    }
}

/// What the bus has taken by now, merged by the lines' timestamps.
///
/// *Memory*: 24 bytes a line, and the batches they lie in, at most the room there is; then fewer lines are kept, and a notice says so. *Time*:
/// [`Config::history_wait`]; then what a shorter look found, and a notice.
///
/// *Cancel safety*: nothing is left behind when the call is dropped.
///
/// # Errors
/// The bus's.
pub(crate) async fn read_back(
    bus: &dyn Bus,
    app: &AppName,
    want: &Want,
    room: Room,
    config: &Config,
) -> Result<Past, BusError> {
    let now = PublishTime::now();
    let limit = Instant::now() + config.history_wait;
    let mut best: Option<Past> = None;
    for start in starts(want, now) {
        let mut read = ReadBack::new(want, &room, config);
        match tokio::time::timeout_at(limit, read.run(bus, app, start, config.history)).await {
            Ok(ran) => ran?,
            Err(_) => {
                let mut past = best.unwrap_or_else(|| Past {
                    reached: now,
                    ..Past::default()
                });
                past.told.push(Told::now(notice::history_timeout(past.reached)));
                past.complete_from = None;
                return Ok(past);
            }
        }
        if read.is_enough() {
            return Ok(read.finish(app));
        }
        best = Some(read.finish(app));
    }
    Ok(best.unwrap_or_default())
}

/// From when on is looked, one after the other.
fn starts(want: &Want, now: PublishTime) -> Vec<Start> {
    let looks = REACHES.map(|reach| now.earlier_by(reach));
    let looks = looks
        .into_iter()
        .filter(|look| want.since.is_none_or(|since| since < *look));
    let looks = looks.filter(|_| want.lines < MANY_LINES);
    looks.map(Start::At).chain([want.farthest()]).collect()
}

/// Reassembly, and the clock it is told.
struct Timed {
    inner: Reassembly,
    began: Instant,
}

impl Timed {
    fn new(inner: Reassembly) -> Self {
        Self {
            inner,
            began: Instant::now(),
        }
    }

    fn now(&self) -> Now {
        Now {
            elapsed: self.began.elapsed(),
            bus: PublishTime::now(),
        }
    }

    fn push(&mut self, delivery: Delivery) {
        self.inner.push(delivery, self.now());
    }

    fn join_all(&mut self) {
        self.inner.join_all(self.now());
    }
}

struct ReadBack<'a> {
    want: &'a Want,
    room: &'a Room,
    config: &'a Config,
    gather: Gather,
    settled: Settled,
    told: Vec<Told>,
    /// All since then was read.
    reached: PublishTime,
    /// Lines that were read were let go: nobody wanted them.
    trimmed: bool,
    /// The same, but they were wanted.
    cut: bool,
    /// Nothing lies before what was read.
    whole: bool,
}

impl<'a> ReadBack<'a> {
    fn new(want: &'a Want, room: &'a Room, config: &'a Config) -> Self {
        Self {
            want,
            room,
            config,
            gather: Gather::new(want.filter.clone()),
            settled: Settled::default(),
            told: Vec::new(),
            reached: PublishTime(0),
            trimmed: false,
            cut: false,
            whole: false,
        }
    }

    /// Whether a longer look would bring nothing more that is wanted.
    fn is_enough(&self) -> bool {
        self.whole || self.cut || self.gather.lines() >= self.want.lines
    }

    /// Reads to the end of what is there.
    async fn run(&mut self, bus: &dyn Bus, app: &AppName, start: Start, history: Duration) -> Result<(), BusError> {
        let opened = PublishTime::now();
        let mut reader = bus.follow(app, start).await?;
        self.reached = reader.since();
        self.whole = match start {
            // The bus begins later than was asked.
            Start::At(asked) => self.reached == PublishTime(0) || self.reached > asked,
            Start::Now | Start::Oldest => true,
        };
        let mut reassembly = Timed::new(Reassembly::new(patience(&reader), reader.since(), history));
        while let Some(item) = reader.next().await.transpose()? {
            if let ReaderItem::CaughtUp = item {
                break;
            }
            self.push(item, &mut reassembly);
        }
        let ended = PublishTime::now();
        reassembly.join_all();
        self.take(&mut reassembly);
        // A shorter look that found too little is followed by a longer one: that one waits.
        let is_last = start == self.want.farthest() || self.is_enough();
        if is_last {
            self.wait_for_holes(&mut reader, &mut reassembly).await?;
        }
        if is_last && reassembly.inner.has_open_gaps() {
            tracing::debug!(%app, "holes in what was read back: looks again");
            let again = Start::At(opened.earlier_by(AROUND));
            self.look_again(bus.follow(app, again).await?, ended, &mut reassembly)
                .await?;
        }
        reassembly.inner.declare_all();
        self.take(&mut reassembly);
        Ok(())
    }

    /// The bus hands out what it has over several streams: the end on one of them says little of another.
    async fn wait_for_holes(&mut self, reader: &mut Reader, reassembly: &mut Timed) -> Result<(), BusError> {
        let limit = Instant::now() + HOLES_WAIT;
        while reassembly.inner.has_open_gaps()
            && let Ok(Some(item)) = tokio::time::timeout_at(limit, reader.next()).await
        {
            self.push(item?, reassembly);
        }
        self.take(reassembly);
        Ok(())
    }

    /// Reads once more what the bus took until then, for what is missing.
    async fn look_again(
        &mut self,
        mut reader: Reader,
        until: PublishTime,
        reassembly: &mut Timed,
    ) -> Result<(), BusError> {
        while reassembly.inner.has_open_gaps()
            && let Some(item) = reader.next().await.transpose()?
        {
            match item {
                ReaderItem::Delivery(delivery) if delivery.published > until => {}
                ReaderItem::Delivery(_) => self.push(item, reassembly),
                // Said already, if it is about what was read.
                ReaderItem::Unreadable(_) | ReaderItem::Interrupted { .. } => {}
                ReaderItem::CaughtUp => break,
            }
        }
        Ok(())
    }

    fn push(&mut self, item: ReaderItem, reassembly: &mut Timed) {
        match item {
            ReaderItem::Delivery(delivery) => reassembly.push(delivery),
            ReaderItem::Unreadable(unreadable) => self.told.push(Told::now(notice::unreadable(&unreadable))),
            ReaderItem::Interrupted { from, to } => {
                self.reached = self.reached.max(to);
                self.told.push(Told::now(notice::interrupted(from, to)));
            }
            ReaderItem::CaughtUp => {}
        }
        self.take(reassembly);
    }

    fn take(&mut self, reassembly: &mut Timed) {
        while let Some(event) = reassembly.inner.next_event() {
            let key = StreamKey::of(&event.metadata.stream);
            self.settled.insert(key, &event);
            self.gather.push(key, event);
        }
        let (lines, bytes) = (self.gather.lines(), self.gather.bytes());
        let many = lines > self.want.lines.saturating_mul(2).saturating_add(SURPLUS_LINES);
        if (many && bytes > self.keeps_bytes()) || bytes > self.room.bytes {
            self.trimmed |= self.gather.keep_last(self.want.lines);
        }
        if self.gather.bytes() > self.room.bytes {
            self.cut = true;
            self.gather.keep_last(self.gather.lines() / 2);
        }
    }

    /// Up to so many bytes, lines are kept that nobody has asked for yet.
    fn keeps_bytes(&self) -> usize {
        if self.want.filter.is_some() {
            0
        } else {
            self.config.ring_bytes
        }
    }

    fn finish(mut self, app: &AppName) -> Past {
        if self.gather.bytes() > self.keeps_bytes() {
            self.trimmed |= self.gather.keep_last(self.want.lines);
        }
        if self.cut {
            let said = notice::history_too_large(self.gather.lines(), self.room.bytes);
            self.told.push(Told::now(said));
        }
        let frames = self.gather.into_frames(app);
        frames.iter().for_each(|frame| frame.charge.keep(&self.room.kept));
        Past {
            told: self.told,
            frames,
            settled: self.settled,
            complete_from: (!self.trimmed && !self.cut).then_some(if self.whole {
                PublishTime(0)
            } else {
                self.reached
            }),
            reached: self.reached,
            cut: self.cut,
        }
    }
}
