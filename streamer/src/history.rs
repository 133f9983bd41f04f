//! Reads back from the bus what the ring does not have.

use std::{collections::VecDeque, time::Duration};

use bus::{
    AppName, Bus, BusError, Item, Published, Start,
    reassembly::{Moment, Reassembly},
};
use bytes::Bytes;
use tokio::time::Instant;

use crate::{
    config::Config,
    frame::Settled,
    gather::{Frames, Gather, notice_frame},
    hub::patience,
    notice,
};

/// How far back is looked first, and then, while too few lines are found.
const REACHES: [Duration; 3] = [
    Duration::from_secs(60),
    Duration::from_secs(10 * 60),
    Duration::from_secs(2 * 3600),
];

/// Lines gathered beyond those wanted before the surplus is let go.
const SURPLUS_LINES: u64 = 50_000;

/// Lines from before a tail began.
#[derive(Default)]
pub(crate) struct History {
    /// The text, oldest first, rendered as it is taken.
    pub(crate) text: Rendered,
    /// All that was read, shown or not: what of the live stream is no news.
    pub(crate) settled: Settled,
}

/// The text of a history. Holds the batches until it is at its end.
#[derive(Default)]
pub(crate) struct Rendered {
    notices: VecDeque<Bytes>,
    frames: Frames,
}

impl Iterator for Rendered {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        self.notices
            .pop_front()
            .or_else(|| self.frames.next().map(|frame| frame.text))
    }
}

/// The last `lines` lines that the bus has taken by now, merged by their timestamps.
///
/// *Memory*: 24 bytes a line, and the batches they lie in, at most [`Config::history_bytes`] in all; then fewer lines are kept, and a notice says so. It is let go when the text has been
/// taken.
///
/// *Cancel safety*: nothing is left behind when the call is dropped.
///
/// # Errors
/// The bus's.
pub(crate) async fn read_back(bus: &dyn Bus, app: &AppName, lines: u64, config: &Config) -> Result<History, BusError> {
    if lines == 0 {
        return Ok(History::default());
    }
    let now = Published::now();
    let starts = REACHES.map(|reach| Start::At(now.earlier_by(reach)));
    for start in starts.into_iter().chain([Start::Oldest]) {
        let mut read = ReadBack::new(lines, config.history_bytes);
        let whole = read.run(bus, app, start, config.history).await?;
        if whole || read.cut || read.gather.lines() >= lines {
            return Ok(read.finish(app));
        }
    }
    Ok(History::default())
}

struct ReadBack {
    wanted: u64,
    max_bytes: usize,
    gather: Gather,
    settled: Settled,
    notices: Vec<String>,
    cut: bool,
}

impl ReadBack {
    fn new(wanted: u64, max_bytes: usize) -> Self {
        Self {
            wanted,
            max_bytes,
            gather: Gather::default(),
            settled: Settled::default(),
            notices: Vec::new(),
            cut: false,
        }
    }

    /// Reads to the end of what is there. True where nothing lies before `start`.
    async fn run(&mut self, bus: &dyn Bus, app: &AppName, start: Start, history: Duration) -> Result<bool, BusError> {
        let mut reader = bus.follow(app, start).await?;
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
                Some(Item::Unreadable(unreadable)) => self.notices.push(notice::unreadable(&unreadable)),
                Some(Item::Break { from, to }) => self.notices.push(notice::interrupted(from, to)),
                Some(Item::CaughtUp) | None => break,
            }
            self.take(&mut reassembly);
        }
        reassembly.declare_all();
        self.take(&mut reassembly);
        let asked = if let Start::At(time) = start {
            time
        } else {
            Published(0)
        };
        Ok(start == Start::Oldest || reader.since() == Published(0) || reader.since() > asked)
    }

    fn take(&mut self, reassembly: &mut Reassembly) {
        while let Some(event) = reassembly.next_event() {
            self.settled.insert(&event);
            self.gather.push(event);
        }
        if self.gather.lines() > self.wanted.saturating_mul(2).saturating_add(SURPLUS_LINES) {
            self.gather.keep_last(self.wanted);
        }
        if self.gather.bytes() > self.max_bytes {
            self.gather.keep_last(self.wanted);
        }
        if self.gather.bytes() > self.max_bytes {
            self.cut = true;
            self.gather.keep_last(self.gather.lines() / 2);
        }
    }

    fn finish(mut self, app: &AppName) -> History {
        self.gather.keep_last(self.wanted);
        if self.cut {
            let kept = self.gather.lines();
            self.notices.push(format!(
                "Error L15: history is cut to its newest {kept} lines: more than {} bytes were asked for",
                self.max_bytes
            ));
        }
        let notices = self
            .notices
            .iter()
            .map(|said| notice_frame(app.as_str(), said).text)
            .collect();
        let text = Rendered {
            notices,
            frames: self.gather.into_frames(),
        };
        History {
            text,
            settled: self.settled,
        }
    }
}
