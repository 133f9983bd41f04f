//! Reassembly of one stream.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Range,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;

use super::{
    acks::Acks,
    event::{Event, EventKind},
    slice,
};
use crate::{
    Ack,
    batch::{Batch, Content, Gap, Part, PlatformMessage, StreamMetadata},
    progress::StreamProgress,
    time::PublishTime,
};

/// The state of one stream.
pub(super) struct Stream {
    metadata: Arc<StreamMetadata>,
    /// Everything below its next sequence number is delivered, reported as a gap, or skipped.
    progress: StreamProgress,
    /// Whether the sequence number at which the reader joins the stream is known.
    joined: bool,
    /// Whether the reader does not join the stream at its first line, because something may precede
    /// it.
    held: bool,
    /// When the lines in front of the one at which the reader joined were published, if they were
    /// while it was reading.
    skipped_published: Range<PublishTime>,
    /// Lines that wait for earlier ones, by sequence number. Of several with the same start, the
    /// longest.
    buffered: BTreeMap<u64, Buffered>,
    /// Recorded gaps that wait for the lines before them.
    gaps: Vec<RecordedGap>,
    end: Option<(u64, Arrival)>,
    ended: bool,
    buffered_bytes: usize,
    /// Arrival of the oldest waiting item, as a cache; `None` if it is to be determined.
    oldest_waiting: Option<Arrival>,
    /// Publish time of the batch that was delivered last in order: what is missing behind it was
    /// published later.
    delivered_published: PublishTime,
    /// Waits start no earlier than this.
    waits_from: Duration,
    pub(super) acks: Acks,
}

/// When a batch arrived.
#[derive(Clone, Copy)]
pub(super) struct Arrival {
    pub(super) elapsed: Duration,
    pub(super) published: PublishTime,
    /// Whether the batch was already old when it arrived.
    pub(super) backlog: bool,
}

struct Buffered {
    data: Bytes,
    lines: u64,
    part: Option<Part>,
    message: Option<Arc<PlatformMessage>>,
    arrival: Arrival,
}

struct RecordedGap {
    seqs: Range<u64>,
    seq: u64,
    gap: Gap,
    arrival: Arrival,
}

impl Stream {
    /// Creates the state of a stream. `from_first_line`: the stream began while the reader was
    /// reading, so its first sequence number is 0.
    pub(super) fn new(metadata: Arc<StreamMetadata>, from_first_line: bool) -> Self {
        Self {
            metadata,
            progress: StreamProgress::default(),
            joined: from_first_line,
            held: false,
            skipped_published: PublishTime(0)..PublishTime(0),
            buffered: BTreeMap::new(),
            gaps: Vec::new(),
            end: None,
            ended: false,
            buffered_bytes: 0,
            oldest_waiting: None,
            delivered_published: PublishTime(0),
            waits_from: Duration::ZERO,
            acks: Acks::default(),
        }
    }

    /// Holds the stream back until [`release`](Self::release), or until its wait is over.
    pub(super) fn hold(&mut self) {
        self.held = true;
    }

    /// Joins the stream if its first line has arrived.
    pub(super) fn release(&mut self, events: &mut VecDeque<Event>) {
        self.held = false;
        self.advance(events);
    }

    /// Returns whether the stream is held back.
    pub(super) fn is_held(&self) -> bool {
        self.held && !self.joined
    }

    /// Returns whether everything up to the stream's end was delivered or reported.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    pub(super) fn buffered_bytes(&self) -> usize {
        self.buffered_bytes
    }

    pub(super) fn last_published(&self) -> PublishTime {
        self.progress.last_published()
    }

    /// Returns the publish time after which everything that is missing was published.
    pub(super) fn missing_since(&self) -> PublishTime {
        self.delivered_published
    }

    /// Returns the time since which the stream has waited for missing lines, and whether it reads a
    /// backlog. `None` if it waits for none.
    pub(super) fn waits_since(&mut self) -> Option<(Duration, bool)> {
        if !self.is_blocked() {
            return None;
        }
        let buffered = self.buffered.values().map(|buffered| buffered.arrival);
        let gaps = self.gaps.iter().map(|recorded| recorded.arrival);
        let end = self.end.filter(|_| !self.ended).map(|(_, arrival)| arrival);
        let oldest = self
            .oldest_waiting
            .or_else(|| buffered.chain(gaps).chain(end).min_by_key(|arrival| arrival.elapsed))?;
        self.oldest_waiting = Some(oldest);
        Some((oldest.elapsed.max(self.waits_from), oldest.backlog))
    }

    /// Restarts all waits at `elapsed`.
    pub(super) fn restart_wait(&mut self, elapsed: Duration) {
        self.waits_from = elapsed;
    }

    /// Records, before the reader joins the stream, that it has been reading since then: of what it
    /// skips, lines that were published later are missing.
    pub(super) fn record_reading_since(&mut self, since: PublishTime) {
        if !self.joined
            && let Some((_, first)) = self.first_waiting()
        {
            self.skipped_published = since..first.published;
        }
    }

    /// Processes a batch.
    pub(super) fn push(&mut self, batch: Batch, ack: Option<Ack>, arrival: Arrival, events: &mut VecDeque<Event>) {
        self.progress.record_published(arrival.published);
        let seq = batch.seq;
        let buffered = |data, lines, part, message| Buffered {
            data,
            lines,
            part,
            message,
            arrival,
        };
        match batch.content {
            Content::Lines { data, lines, part } => {
                self.acks.add(seq..seq + lines, ack);
                self.push_lines(seq, buffered(data, lines, part, None), events);
            }
            Content::Message { data, message } => {
                self.acks.add(seq..seq + 1, ack);
                self.push_lines(seq, buffered(data, 1, None, Some(message)), events);
            }
            Content::Gap(gap) => self.push_gap(seq, gap, arrival, ack),
            Content::End => {
                self.end.get_or_insert((seq, arrival));
                // Losing an end loses no line, so it needs no acknowledgement by the reader.
                ack.into_iter().for_each(Ack::ack);
            }
            Content::Marker(_) => {}
        }
        self.advance(events);
    }

    fn push_lines(&mut self, seq: u64, batch: Buffered, events: &mut VecDeque<Event>) {
        let end = seq + batch.lines;
        if let Some(next) = self.next() {
            if self.skipped_published.contains(&batch.arrival.published) {
                self.report_skipped(seq..end, batch.arrival.published, events);
            }
            let late: Vec<_> = self.progress.undelivered_in(seq..end.min(next)).collect();
            for range in late {
                system::probe!("reassembly: lines of a declared gap arrive");
                self.progress.deliver(range.clone());
                let event = self.lines_event(seq, &batch, range, true);
                events.push_back(event);
            }
            if end <= next {
                return;
            }
        }
        let duplicate = self.buffered.get(&seq);
        if duplicate.is_some() {
            system::probe!("reassembly: a batch arrives again while it is buffered");
        }
        if duplicate.is_none_or(|buffered| buffered.lines < batch.lines) {
            self.buffered_bytes += batch.data.len();
            let shorter = self.buffered.insert(seq, batch);
            self.buffered_bytes -= shorter.map_or(0, |buffered| buffered.data.len());
        }
    }

    /// Reports everything that was skipped from these lines on as undelivered: a publisher publishes
    /// a stream in order, so what follows them was published while the reader was reading, too.
    fn report_skipped(&mut self, lines: Range<u64>, published: PublishTime, events: &mut VecDeque<Event>) {
        let Some(first) = self.progress.skipped_in(lines).next() else {
            return;
        };
        let skipped: Vec<_> = self.progress.skipped_in(first.start..u64::MAX).collect();
        for gap in skipped {
            let kind = EventKind::Gap {
                lines: gap.end - gap.start,
                gap: None,
            };
            events.push_back(self.event(gap.start, published, kind));
            self.progress.report_gap(gap);
        }
    }

    fn push_gap(&mut self, seq: u64, gap: Gap, arrival: Arrival, ack: Option<Ack>) {
        system::probe!("reassembly: a published gap arrives");
        let seqs = seq..seq + gap.lines;
        let is_repeat = if gap.lines == 0 {
            self.progress.has_reported(seq, &gap)
                || (self.next().is_some_and(|next| seq < next) && self.precedes_first_line(seq))
        } else {
            self.next().is_some_and(|next| seqs.end <= next)
        };
        let waiting = self
            .gaps
            .iter()
            .any(|recorded| recorded.seq == seq && recorded.gap == gap);
        self.acks.add_gap(seq, &gap, ack);
        if is_repeat && !waiting {
            // Its lines were delivered or reported already, so nothing is left to report.
            self.acks.acknowledge_gap(seq, &gap);
            return;
        }
        if !waiting {
            self.gaps.push(RecordedGap {
                seqs,
                seq,
                gap,
                arrival,
            });
            self.gaps.sort_by_key(|recorded| recorded.seq);
        }
    }

    /// Returns whether the reader has delivered no line up to and including `seq`.
    fn precedes_first_line(&self, seq: u64) -> bool {
        self.progress.is_undelivered(&(0..seq + 1))
    }

    /// Emits everything that does not wait for missing lines.
    fn advance(&mut self, events: &mut VecDeque<Event>) {
        // Nothing precedes the first line.
        self.joined |= !self.held && self.lowest_waiting_seq() == Some(0);
        while let Some(next) = self.next() {
            if self.report_unknown_gap(next, events)
                || self.deliver_buffered(next, events)
                || self.report_recorded_gap(next, events)
            {
                continue;
            }
            if let Some((total, arrival)) = self.end
                && total <= next
                && !self.ended
            {
                self.ended = true;
                events.push_back(self.event(total, arrival.published, EventKind::End));
            }
            return;
        }
    }

    fn deliver_buffered(&mut self, next: u64, events: &mut VecDeque<Event>) -> bool {
        let Some(entry) = self.buffered.first_entry().filter(|entry| *entry.key() <= next) else {
            return false;
        };
        let (seq, buffered) = entry.remove_entry();
        self.buffered_bytes -= buffered.data.len();
        self.delivered_published = buffered.arrival.published;
        let end = seq + buffered.lines;
        if end > next {
            events.push_back(self.lines_event(seq, &buffered, next..end, false));
            self.progress.deliver(next..end);
            self.oldest_waiting = None;
        }
        true
    }

    fn report_unknown_gap(&mut self, next: u64, events: &mut VecDeque<Event>) -> bool {
        let mut gaps = self.gaps.iter();
        let Some(index) = gaps.position(|recorded| recorded.gap.lines == 0 && recorded.seq <= next) else {
            return false;
        };
        let recorded = self.gaps.remove(index);
        self.progress
            .report_unknown_gap(recorded.seq, Some(recorded.gap.clone()));
        let kind = EventKind::Gap {
            lines: 0,
            gap: Some(recorded.gap),
        };
        events.push_back(self.event(recorded.seq, recorded.arrival.published, kind));
        true
    }

    /// Reports a recorded gap at the next sequence number, as far as its lines have not arrived.
    fn report_recorded_gap(&mut self, next: u64, events: &mut VecDeque<Event>) -> bool {
        self.gaps
            .retain(|recorded| recorded.gap.lines == 0 || recorded.seqs.end > next);
        let mut gaps = self.gaps.iter();
        let Some(recorded) = gaps.find(|recorded| recorded.gap.lines > 0 && recorded.seqs.start <= next) else {
            return false;
        };
        let arrived = self.buffered.first_key_value().map_or(u64::MAX, |(seq, _)| *seq);
        let end = recorded.seqs.end.min(arrived);
        let kind = EventKind::Gap {
            lines: end - next,
            gap: Some(recorded.gap.clone()),
        };
        events.push_back(self.event(next, recorded.arrival.published, kind));
        self.pass(next..end);
        true
    }

    /// Reports the first gap as undelivered, or decides at which line the reader joins.
    pub(super) fn declare_first(&mut self, events: &mut VecDeque<Event>) {
        if let Some(first) = self.lowest_waiting_seq() {
            match self.next() {
                None => {
                    self.joined = true;
                    self.progress.skip_to(first);
                    self.oldest_waiting = None;
                }
                Some(next) if next < first => {
                    let kind = EventKind::Gap {
                        lines: first - next,
                        gap: None,
                    };
                    events.push_back(self.event(next, self.last_published(), kind));
                    self.pass(next..first);
                }
                Some(_) => {}
            }
        }
        self.advance(events);
    }

    /// Reports all gaps before known lines as undelivered.
    pub(super) fn declare_all(&mut self, events: &mut VecDeque<Event>) {
        while self.is_blocked() {
            self.declare_first(events);
        }
    }

    /// Nacks the buffered batch with the highest sequence number. Returns false if it has no ack.
    pub(super) fn nack_last(&mut self) -> bool {
        let Some((seq, buffered)) = self.buffered.last_key_value() else {
            return false;
        };
        let lines = *seq..seq + buffered.lines;
        if !self.acks.nack(&lines) {
            return false;
        }
        let nacked = self.buffered.pop_last();
        self.buffered_bytes -= nacked.map_or(0, |(_, buffered)| buffered.data.len());
        true
    }

    /// Returns whether lines are buffered while the reader has not joined the stream.
    pub(super) fn is_joining(&self) -> bool {
        !self.joined && self.lowest_waiting_seq().is_some()
    }

    /// Returns whether something waits for missing lines.
    fn is_blocked(&self) -> bool {
        self.is_joining() || !self.buffered.is_empty() || !self.gaps.is_empty() || (self.end.is_some() && !self.ended)
    }

    /// Returns the lowest sequence number of what waits.
    fn lowest_waiting_seq(&self) -> Option<u64> {
        self.first_waiting().map(|(seq, _)| seq)
    }

    /// Returns the lowest sequence number of what waits, and its arrival.
    fn first_waiting(&self) -> Option<(u64, Arrival)> {
        let buffered = self.buffered.first_key_value();
        let buffered = buffered.map(|(seq, buffered)| (*seq, buffered.arrival));
        let gap = self.gaps.first().map(|recorded| (recorded.seq, recorded.arrival));
        let end = self.end.filter(|_| !self.ended);
        let waiting = [buffered, gap, end].into_iter().flatten();
        waiting.min_by_key(|(seq, _)| *seq)
    }

    fn next(&self) -> Option<u64> {
        self.joined.then(|| self.progress.next())
    }

    fn pass(&mut self, gap: Range<u64>) {
        self.progress.report_gap(gap);
        self.oldest_waiting = None;
    }

    fn lines_event(&self, seq: u64, batch: &Buffered, range: Range<u64>, late: bool) -> Event {
        let data = slice::lines(&batch.data, range.start - seq..range.end - seq, batch.lines);
        let kind = EventKind::Lines {
            data,
            lines: range.end - range.start,
            part: batch.part,
            late,
            message: batch.message.clone(),
        };
        self.event(range.start, batch.arrival.published, kind)
    }

    fn event(&self, seq: u64, published: PublishTime, kind: EventKind) -> Event {
        Event {
            metadata: Arc::clone(&self.metadata),
            seq,
            published,
            kind,
        }
    }
}
