//! Reads history from the bus.

use std::{sync::Arc, time::Duration};

use bus::{
    AppName, Bus, BusError, Delivery, PublishTime, Reader, ReaderItem, Start,
    cursor::StreamKey,
    notice,
    reassembly::{GapTimeouts, Now, REORDER_WINDOW, Reassembly},
};
use system::clock::{self, Instant};

use crate::{
    config::Config,
    history::sort::Sorter,
    hub::{
        cached_history::{HistoryBudget, HistorySegment},
        delivered::Delivered,
    },
    line::NoticeLine,
    query::filter::Filter,
};

/// How far back the first attempts read. Each reads further if the one before found too few lines.
const LOOKBACKS: [Duration; 3] = [
    Duration::from_secs(60),
    Duration::from_secs(10 * 60),
    Duration::from_secs(2 * 3600),
];

/// If sequence numbers are still missing, everything that was published since shortly before them
/// is read again: a subscription can miss what is published while it is created and sought back in
/// time, and a stream that ends can hold back messages until their ack deadline.
const REREAD_MARGIN: Duration = Duration::from_secs(10);

/// How often missing sequence numbers are read again before they are declared as a gap.
const MAX_REREADS: usize = 3;

/// A request for at least this many lines skips the short lookbacks.
const MANY_LINES: u64 = 100_000;

/// Lines held beyond those requested before the surplus is dropped.
const SURPLUS_LINES: u64 = 50_000;

/// What a history read returns.
pub(crate) struct ReadRequest {
    /// Return the newest lines, at least this many if there are so many.
    pub(crate) lines: u64,
    /// Return nothing published before this.
    pub(crate) since: Option<PublishTime>,
    /// Return matching lines only. Without a filter the result can serve other tails, so lines
    /// beyond `lines` are kept while they are small.
    pub(crate) filter: Option<Arc<Filter>>,
}

impl ReadRequest {
    /// Returns where the longest lookback starts.
    fn earliest_start(&self) -> Start {
        self.since.map_or(Start::Oldest, Start::At)
    }
}

/// Reads what has been published so far, merged by timestamp.
///
/// If the result exceeds the budget, older lines are dropped and a notice reports it. If the read
/// takes longer than [`Config::history_timeout`], the result of the last completed lookback is
/// returned with a notice.
///
/// *Memory*: 24 bytes per line and the batches, at most `budget.bytes`.
///
/// *Cancel safety*: dropping the call leaves nothing behind.
///
/// # Errors
/// The error of the bus.
pub(crate) async fn read(
    bus: &dyn Bus,
    app: &AppName,
    request: &ReadRequest,
    budget: HistoryBudget,
    config: &Config,
) -> Result<HistorySegment, BusError> {
    // Before anything was read, this machine's clock stands in. If it is wrong, the first lookbacks
    // find too little or too much, and the next one decides.
    let now = bus.now().unwrap_or_else(PublishTime::now);
    let limit = clock::steady() + config.history_timeout;
    let mut best: Option<HistorySegment> = None;
    for start in starts(request, now) {
        let mut reading = HistoryReader::new(request, &budget, config);
        match tokio::time::timeout_at(limit, reading.run(bus, app, start, config.history)).await {
            Ok(result) => result?,
            Err(_) => {
                let mut segment = best.unwrap_or_else(|| HistorySegment {
                    reached: now,
                    ..HistorySegment::default()
                });
                segment
                    .notices
                    .push(NoticeLine::now(notice::history_timeout(segment.reached)));
                segment.complete_from = None;
                return Ok(segment);
            }
        }
        if reading.is_enough() {
            return Ok(reading.finish(app));
        }
        best = Some(reading.finish(app));
    }
    Ok(best.unwrap_or_default())
}

/// Returns the starts of the lookbacks, shortest first.
fn starts(request: &ReadRequest, now: PublishTime) -> Vec<Start> {
    let starts = LOOKBACKS.map(|lookback| now.earlier_by(lookback));
    let starts = starts
        .into_iter()
        .filter(|start| request.since.is_none_or(|since| since < *start));
    let starts = starts.filter(|_| request.lines < MANY_LINES);
    starts.map(Start::At).chain([request.earliest_start()]).collect()
}

/// A reassembly with its clock.
struct TimedReassembly {
    inner: Reassembly,
    started: Instant,
}

impl TimedReassembly {
    fn new(inner: Reassembly) -> Self {
        Self {
            inner,
            started: clock::steady(),
        }
    }

    fn now(&self, bus: PublishTime) -> Now {
        Now {
            elapsed: clock::since(self.started),
            bus,
        }
    }

    fn push(&mut self, delivery: Delivery) {
        // While it catches up, nothing depends on the age of a batch.
        let now = self.now(delivery.published);
        self.inner.push(delivery, now);
    }

    fn join_all(&mut self, bus: PublishTime) {
        self.inner.join_all(self.now(bus));
    }
}

struct HistoryReader<'a> {
    request: &'a ReadRequest,
    budget: &'a HistoryBudget,
    config: &'a Config,
    sorter: Sorter,
    delivered: Delivered,
    notices: Vec<NoticeLine>,
    /// Everything published since then was read.
    reached: PublishTime,
    /// Lines beyond the requested number were dropped.
    trimmed: bool,
    /// Requested lines were dropped to stay within the budget.
    truncated: bool,
    /// Everything that the bus still holds was read.
    exhausted: bool,
}

impl<'a> HistoryReader<'a> {
    fn new(request: &'a ReadRequest, budget: &'a HistoryBudget, config: &'a Config) -> Self {
        Self {
            request,
            budget,
            config,
            sorter: Sorter::new(request.filter.clone()),
            delivered: Delivered::default(),
            notices: Vec::new(),
            reached: PublishTime(0),
            trimmed: false,
            truncated: false,
            exhausted: false,
        }
    }

    /// Returns whether a longer lookback would return nothing more.
    fn is_enough(&self) -> bool {
        self.exhausted || self.truncated || self.sorter.lines() >= self.request.lines
    }

    /// Reads from `start` until the bus has caught up.
    async fn run(&mut self, bus: &dyn Bus, app: &AppName, start: Start, history: Duration) -> Result<(), BusError> {
        let mut reader = bus.follow(app, start).await?;
        self.reached = reader.since();
        self.exhausted = match start {
            // The oldest batch is newer than the requested start.
            Start::At(requested) => self.reached == PublishTime(0) || self.reached > requested,
            Start::Now | Start::Oldest => true,
        };
        let mut reassembly =
            TimedReassembly::new(Reassembly::new(GapTimeouts::for_tail(&reader), reader.since(), history));
        while let Some(item) = reader.next().await.transpose()? {
            if let ReaderItem::CaughtUp = item {
                break;
            }
            self.push(item, &mut reassembly);
        }
        // The marker of the engine, if it needs one, has shown the time of the bus.
        let ended = reader.now();
        reassembly.join_all(ended);
        self.sort_events(&mut reassembly);
        // Gaps are worth waiting for only in the last lookback.
        let is_last = start == self.request.earliest_start() || self.is_enough();
        if is_last {
            self.wait_for_gaps(&mut reader, ended, &mut reassembly).await?;
        }
        for _ in 0..MAX_REREADS {
            let Some(missing_since) = reassembly.inner.missing_since().filter(|_| is_last) else {
                break;
            };
            system::probe!("history: missing lines are read again");
            tracing::debug!(%app, ?missing_since, "history has gaps, reading again");
            let again = Start::At(missing_since.earlier_by(REREAD_MARGIN).max(self.reached));
            self.reread(bus.follow(app, again).await?, ended, &mut reassembly)
                .await?;
        }
        reassembly.inner.declare_all();
        self.sort_events(&mut reassembly);
        Ok(())
    }

    /// Waits for missing sequence numbers among what was published until then: the bus delivers over
    /// several connections, and one that has caught up says nothing about the others.
    async fn wait_for_gaps(
        &mut self,
        reader: &mut Reader,
        until: PublishTime,
        reassembly: &mut TimedReassembly,
    ) -> Result<(), BusError> {
        let limit = clock::steady() + REORDER_WINDOW;
        while reassembly.inner.has_open_gaps()
            && let Ok(Some(item)) = tokio::time::timeout_at(limit, reader.next()).await
        {
            match item? {
                // It is not history, and batches before it may still be on their way.
                ReaderItem::Delivery(delivery) if delivery.published > until => {}
                item => self.push(item, reassembly),
            }
        }
        self.sort_events(reassembly);
        Ok(())
    }

    /// Reads what was published until then once more, to fill gaps.
    async fn reread(
        &mut self,
        mut reader: Reader,
        until: PublishTime,
        reassembly: &mut TimedReassembly,
    ) -> Result<(), BusError> {
        while reassembly.inner.has_open_gaps()
            && let Some(item) = reader.next().await.transpose()?
        {
            match item {
                ReaderItem::Delivery(delivery) if delivery.published > until => {}
                ReaderItem::Delivery(_) => self.push(item, reassembly),
                // Reported by the first read.
                ReaderItem::Unreadable(_) | ReaderItem::Interrupted { .. } | ReaderItem::HistoryCut { .. } => {}
                ReaderItem::CaughtUp => break,
            }
        }
        Ok(())
    }

    fn push(&mut self, item: ReaderItem, reassembly: &mut TimedReassembly) {
        match item {
            ReaderItem::Delivery(delivery) => reassembly.push(delivery),
            ReaderItem::Unreadable(unreadable) => self.notices.push(NoticeLine::now(notice::unreadable(&unreadable))),
            ReaderItem::HistoryCut { from, to } => {
                self.trimmed = true;
                self.notices.push(NoticeLine::now(notice::history_cut(from, to)));
            }
            ReaderItem::Interrupted { from, to } => {
                self.reached = self.reached.max(to);
                self.notices.push(NoticeLine::now(notice::interrupted(from, to)));
            }
            ReaderItem::CaughtUp => {}
        }
        self.sort_events(reassembly);
    }

    fn sort_events(&mut self, reassembly: &mut TimedReassembly) {
        while let Some(event) = reassembly.inner.next_event() {
            let key = StreamKey::of(&event.metadata.stream);
            self.delivered.insert(key, &event);
            self.sorter.push(key, event);
        }
        let (lines, bytes) = (self.sorter.lines(), self.sorter.bytes());
        let many = lines > self.request.lines.saturating_mul(2).saturating_add(SURPLUS_LINES);
        if (many && bytes > self.surplus_bytes()) || bytes > self.budget.bytes {
            self.trimmed |= self.sorter.keep_last(self.request.lines);
        }
        if self.sorter.bytes() > self.budget.bytes {
            self.truncated = true;
            self.sorter.keep_last(self.sorter.lines() / 2);
        }
    }

    /// Returns up to how many bytes lines are kept beyond those requested.
    fn surplus_bytes(&self) -> usize {
        if self.request.filter.is_some() {
            0
        } else {
            self.config.ring_bytes
        }
    }

    fn finish(mut self, app: &AppName) -> HistorySegment {
        if self.sorter.bytes() > self.surplus_bytes() {
            self.trimmed |= self.sorter.keep_last(self.request.lines);
        }
        if self.truncated {
            let notice = notice::history_too_large(self.sorter.lines(), self.budget.bytes);
            self.notices.push(NoticeLine::now(notice));
        }
        let frames = self.sorter.into_frames(app);
        frames
            .iter()
            .for_each(|frame| frame.charge.count_in(&self.budget.memory));
        HistorySegment {
            notices: self.notices,
            frames,
            delivered: self.delivered,
            complete_from: (!self.trimmed && !self.truncated).then_some(if self.exhausted {
                PublishTime(0)
            } else {
                self.reached
            }),
            reached: self.reached,
            truncated: self.truncated,
        }
    }
}
