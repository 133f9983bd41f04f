//! Reads a drain's subscription: puts lines in order and adds gap notices.

use std::{sync::Arc, time::Duration};

use bus::{
    Ack, BusError, PublishTime, Reader, ReaderItem, StreamId, Timestamp,
    notice::{self, Notice, TRIBUTARY},
    reassembly::{Event, EventKind, GapTimeouts, Now, Reassembly, Receipt},
};
use futures::future::OptionFuture;
use system::{clock, collections::HashMap};
use tokio::time::{Instant, sleep_until};

use crate::{
    budget::MemoryBudget,
    metrics::GapLabel,
    queue::{QueueItem, SendQueue},
    render::{MessageFormat, StreamHeader, may_contain_level},
    stats::DrainStats,
};

/// How long lines after an interruption are counted before the notice (L10) states how many are
/// lost.
const OVERFLOW_COUNT_TIME: Duration = Duration::from_secs(1);

/// The maximum number of streams whose headers are cached.
const MAX_HEADERS: usize = 4096;

/// The interval at which ended streams are removed from memory.
const CLEANUP_INTERVAL: Duration = Duration::from_secs(60);

/// Reads a drain's subscription into its queue.
pub(crate) struct DrainReader {
    reader: Reader,
    reassembly: Reassembly,
    started: Instant,
    cleaned_up: Instant,
    /// The drain's id as notices name it.
    drain_id: String,
    /// Lines that are read and not confirmed.
    pub(crate) queue: SendQueue,
    headers: HashMap<StreamId, Arc<StreamHeader>>,
    notice_header: Arc<StreamHeader>,
    overflow: Option<Overflow>,
    /// The last interruption; later gaps without a reason are its consequence.
    interrupted: Option<(PublishTime, PublishTime)>,
    stats: Arc<DrainStats>,
}

/// The settings of a [`DrainReader`].
pub(crate) struct ReaderConfig {
    pub(crate) format: MessageFormat,
    pub(crate) retention: Duration,
    pub(crate) max_buffer_bytes: usize,
    pub(crate) budget: Arc<MemoryBudget>,
    /// Whether nothing has read the subscription before.
    pub(crate) is_new: bool,
    /// The span that the bus no longer retains, if known before reading.
    pub(crate) lost: Option<(PublishTime, PublishTime)>,
}

/// Lines that the bus no longer retains, while their number is determined.
struct Overflow {
    from: PublishTime,
    to: PublishTime,
    lines: u64,
    until: Instant,
}

impl DrainReader {
    /// Reads a subscription for a drain.
    pub(crate) fn new(reader: Reader, drain: &registry::Drain, config: ReaderConfig, stats: Arc<DrainStats>) -> Self {
        let timeouts = GapTimeouts::for_drain(&reader, config.is_new);
        let reassembly = Reassembly::new(timeouts, reader.since(), config.retention);
        let now = clock::steady();
        let mut new = Self {
            reader,
            reassembly,
            started: now,
            cleaned_up: now,
            drain_id: drain.id.to_string(),
            notice_header: Arc::new(config.format.notice_header(&drain.app)),
            queue: SendQueue::new(
                config.format,
                config.max_buffer_bytes,
                config.budget,
                Arc::clone(&stats),
            ),
            headers: HashMap::default(),
            overflow: None,
            interrupted: None,
            stats,
        };
        if let Some((from, to)) = config.lost {
            new.on_interruption(from, to);
        }
        new
    }

    /// Reads more lines; returns after any progress. `None` if the bus closed or the app was
    /// deleted.
    ///
    /// *Cancel safety*: nothing is lost if the future is dropped.
    ///
    /// # Errors
    /// The bus's error.
    pub(crate) async fn fill(&mut self) -> Option<Result<(), BusError>> {
        let deadline = self.reassembly.deadline().map(|deadline| self.started + deadline);
        let deadline = deadline
            .into_iter()
            .chain(self.overflow.as_ref().map(|overflow| overflow.until))
            .min();
        tokio::select! {
            item = self.reader.next() => match item? {
                Ok(item) => self.on_item(item),
                Err(error) => return Some(Err(error)),
            },
            Some(()) = OptionFuture::from(deadline.map(sleep_until)) => {}
        }
        while self.queue.has_room()
            && let Some(item) = self.reader.try_next()
        {
            match item {
                Ok(item) => self.on_item(item),
                Err(error) => return Some(Err(error)),
            }
        }
        let now = self.now();
        self.reassembly.declare_due(now);
        self.process_events();
        if clock::since(self.cleaned_up) > CLEANUP_INTERVAL {
            self.cleaned_up = clock::steady();
            self.reassembly.forget(now.bus);
        }
        if self
            .overflow
            .as_ref()
            .is_some_and(|overflow| overflow.until <= clock::steady() || !self.queue.has_room())
        {
            self.report_overflow();
        }
        self.queue.update_lag();
        Some(Ok(()))
    }

    fn now(&self) -> Now {
        Now {
            elapsed: clock::since(self.started),
            bus: self.reader.now(),
        }
    }

    fn on_item(&mut self, item: ReaderItem) {
        match item {
            ReaderItem::Delivery(mut delivery) => {
                // A notice about this drain, sent through it, could cause another one.
                if delivery.batch.metadata.about.as_ref() == Some(&self.drain_id) {
                    return delivery.ack.take().into_iter().for_each(Ack::ack);
                }
                let now = self.now();
                self.reassembly.push(delivery, now);
                self.process_events();
            }
            ReaderItem::Unreadable(unreadable) => {
                self.stats.add_gap(GapLabel::Unreadable, 0);
                let now = self.reader.now();
                self.push_notice(&notice::unreadable(&unreadable), now, None);
            }
            ReaderItem::Interrupted { from, to } => self.on_interruption(from, to),
            ReaderItem::CaughtUp | ReaderItem::HistoryCut { .. } => {}
        }
    }

    fn on_interruption(&mut self, from: PublishTime, to: PublishTime) {
        self.interrupted = Some((from, to));
        if self.queue.has_stopped_lines() {
            // Lines arrived since the last interruption: each is reported at its own position.
            self.report_overflow();
        }
        match &mut self.overflow {
            Some(overflow) => overflow.to = to,
            None => {
                self.queue.stop_here();
                self.overflow = Some(Overflow {
                    from,
                    to,
                    lines: 0,
                    until: clock::steady() + OVERFLOW_COUNT_TIME,
                });
            }
        }
    }

    fn process_events(&mut self) {
        while let Some(event) = self.reassembly.next_event() {
            let receipt = event.receipt();
            match &event.kind {
                EventKind::Lines { data, lines, .. } => {
                    let header = self.header(&event);
                    self.queue.push(QueueItem {
                        data: data.clone(),
                        lines: *lines,
                        rendered_once: 0,
                        has_levels: may_contain_level(data),
                        is_counted: event.metadata.origin != TRIBUTARY,
                        header,
                        receipt: Some(receipt),
                        published: event.published,
                    });
                }
                EventKind::Gap { lines, gap } => self.on_gap(&event, *lines, gap.as_ref(), receipt),
                EventKind::End => self.reassembly.acknowledge(&receipt),
            }
        }
    }

    fn on_gap(&mut self, event: &Event, lines: u64, gap: Option<&bus::Gap>, receipt: Receipt) {
        match (gap, self.interrupted, &mut self.overflow) {
            (None, Some(_), Some(overflow)) => overflow.lines += lines,
            (None, Some((from, _)), None) => {
                self.stats.add_gap(GapLabel::Retention, lines);
                let notice = notice::drain_overflow(lines, from, event.published);
                self.push_notice(&notice, event.published, None);
            }
            (None, None, _) => {
                self.stats.add_gap(GapLabel::Undelivered, lines);
                let notice = notice::gap(&event.metadata, event.seq, lines, None);
                self.push_notice(&notice, event.published, None);
            }
            (Some(gap), ..) => {
                self.stats.add_gap(GapLabel::from(&gap.reason), lines);
                let notice = notice::gap(&event.metadata, event.seq, lines, Some(gap));
                self.push_notice(&notice, event.published, Some(receipt));
            }
        }
    }

    fn report_overflow(&mut self) {
        let Some(overflow) = self.overflow.take() else { return };
        self.stats.add_gap(GapLabel::Retention, overflow.lines);
        let notice = notice::drain_overflow(overflow.lines, overflow.from, overflow.to);
        let item = self.item(&notice, overflow.to, None);
        self.queue.insert_at_stop(item);
    }

    fn push_notice(&mut self, notice: &Notice, published: PublishTime, receipt: Option<Receipt>) {
        let item = self.item(notice, published, receipt);
        self.queue.push(item);
    }

    fn item(&self, notice: &Notice, published: PublishTime, receipt: Option<Receipt>) -> QueueItem {
        QueueItem {
            data: format!("{} {}\n", Timestamp::now(), notice.text).into(),
            lines: 1,
            rendered_once: 0,
            header: Arc::clone(&self.notice_header),
            has_levels: false,
            receipt,
            published,
            is_counted: false,
        }
    }

    /// Confirms the first items, counted since the connection began: their lines are delivered or
    /// lost. Returns the number of their lines without platform messages.
    pub(crate) fn confirm(&mut self, items: u64) -> u64 {
        let reassembly = &mut self.reassembly;
        self.queue.confirm(items, |receipt| reassembly.acknowledge(receipt))
    }

    fn header(&mut self, event: &Event) -> Arc<StreamHeader> {
        if let Some(header) = self.headers.get(&event.metadata.stream) {
            return Arc::clone(header);
        }
        if self.headers.len() >= MAX_HEADERS {
            self.headers.clear();
        }
        let header = Arc::new(self.queue.format().header(&event.metadata));
        self.headers.insert(event.metadata.stream.clone(), Arc::clone(&header));
        header
    }
}
