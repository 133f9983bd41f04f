//! Reads back from the bus what the ring does not have.

use std::{sync::Arc, time::Duration};

use bus::{
    AppName, Bus, BusError, Item, Published, Start,
    cursor::StreamKey,
    reassembly::{Moment, Reassembly},
};
use tokio::time::Instant;

use crate::{
    config::Config,
    filter::Filter,
    frame::{Frame, Told},
    gather::Gather,
    hub::patience,
    notice,
    ring::Place,
    settled::Settled,
};

/// How far back is looked first, and then, while too few lines are found.
const REACHES: [Duration; 3] = [
    Duration::from_secs(60),
    Duration::from_secs(10 * 60),
    Duration::from_secs(2 * 3600),
];

/// Who wants more lines than this is hardly served by a short look first.
const MANY_LINES: u64 = 100_000;

/// Lines gathered beyond those wanted before the surplus is let go.
const SURPLUS_LINES: u64 = 50_000;

/// What a read-back is for.
pub(crate) struct Want {
    /// So many lines at least, where there are so many; the newest.
    pub(crate) lines: u64,
    /// Nothing that the bus took before this.
    pub(crate) since: Option<Published>,
    /// Only these. `None`: what is read may serve others too, and is kept beyond `lines` while it is small.
    pub(crate) filter: Option<Arc<Filter>>,
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
    pub(crate) complete_from: Option<Published>,
    /// How far back was read.
    pub(crate) reached: Published,
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
/// *Memory*: 24 bytes a line, and the batches they lie in, at most [`Config::history_bytes`] in all; then fewer lines are kept, and a notice says so. *Time*:
/// [`Config::history_wait`]; then what a shorter look found, and a notice.
///
/// *Cancel safety*: nothing is left behind when the call is dropped.
///
/// # Errors
/// The bus's.
pub(crate) async fn read_back(bus: &dyn Bus, app: &AppName, want: &Want, config: &Config) -> Result<Past, BusError> {
    let now = Published::now();
    let limit = Instant::now() + config.history_wait;
    let mut best: Option<Past> = None;
    for start in starts(want, now) {
        let mut read = ReadBack::new(want, config);
        match tokio::time::timeout_at(limit, read.run(bus, app, start, config.history)).await {
            Ok(ran) => ran?,
            Err(_) => {
                let mut past = best.unwrap_or_else(|| Past {
                    reached: now,
                    ..Past::default()
                });
                past.told.push(Told::now(notice::too_long(past.reached)));
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
fn starts(want: &Want, now: Published) -> Vec<Start> {
    let last = want.since.map_or(Start::Oldest, Start::At);
    let looks = REACHES.map(|reach| now.earlier_by(reach));
    let looks = looks
        .into_iter()
        .filter(|look| want.since.is_none_or(|since| since < *look));
    let looks = looks.filter(|_| want.lines < MANY_LINES);
    looks.map(Start::At).chain([last]).collect()
}

struct ReadBack<'a> {
    want: &'a Want,
    config: &'a Config,
    gather: Gather,
    settled: Settled,
    told: Vec<Told>,
    /// All since then was read.
    reached: Published,
    /// Lines that were read were let go: nobody wanted them.
    trimmed: bool,
    /// The same, but they were wanted.
    cut: bool,
    /// Nothing lies before what was read.
    whole: bool,
}

impl<'a> ReadBack<'a> {
    fn new(want: &'a Want, config: &'a Config) -> Self {
        Self {
            want,
            config,
            gather: Gather::new(want.filter.clone()),
            settled: Settled::default(),
            told: Vec::new(),
            reached: Published(0),
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
        let mut reader = bus.follow(app, start).await?;
        self.reached = reader.since();
        self.whole = match start {
            // The bus begins later than was asked.
            Start::At(asked) => self.reached == Published(0) || self.reached > asked,
            Start::Now | Start::Oldest => true,
        };
        let began = Instant::now();
        let mut reassembly = Reassembly::new(patience(&reader), reader.since(), history);
        loop {
            match reader.next().await.transpose()? {
                Some(Item::Delivery(delivery)) => {
                    let now = Moment {
                        elapsed: began.elapsed(),
                        bus: Published::now(),
                    };
                    reassembly.push(delivery, now);
                }
                Some(Item::Unreadable(unreadable)) => self.told.push(Told::now(notice::unreadable(&unreadable))),
                Some(Item::Break { from, to }) => {
                    self.reached = self.reached.max(to);
                    self.told.push(Told::now(notice::interrupted(from, to)));
                }
                Some(Item::CaughtUp) | None => break,
            }
            self.take(&mut reassembly);
        }
        reassembly.declare_all();
        self.take(&mut reassembly);
        Ok(())
    }

    fn take(&mut self, reassembly: &mut Reassembly) {
        while let Some(event) = reassembly.next_event() {
            let key = StreamKey::of(&event.origin.stream);
            self.settled.insert(key, &event);
            self.gather.push(key, event);
        }
        let (lines, bytes) = (self.gather.lines(), self.gather.bytes());
        let many = lines > self.want.lines.saturating_mul(2).saturating_add(SURPLUS_LINES);
        if (many && bytes > self.keeps_bytes()) || bytes > self.config.history_bytes {
            self.trimmed |= self.gather.keep_last(self.want.lines);
        }
        if self.gather.bytes() > self.config.history_bytes {
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
            let said = notice::cut(self.gather.lines(), self.config.history_bytes);
            self.told.push(Told::now(said));
        }
        Past {
            told: self.told,
            frames: self.gather.into_frames(app),
            settled: self.settled,
            complete_from: (!self.trimmed && !self.cut).then_some(if self.whole { Published(0) } else { self.reached }),
            reached: self.reached,
            cut: self.cut,
        }
    }
}
