//! Log lines and notices as the streamer passes them on: borrowed from the batches that carry them.

use std::{ops::Range, sync::Arc};

use bus::{
    Gap, GapReason, Part, PlatformMessage, PublishTime, StreamMetadata, Timestamp,
    cursor::StreamKey,
    notice::{self, Notice},
    reassembly::{Event, EventKind},
};

/// One line of a stream.
#[derive(Clone, Copy)]
pub(crate) struct Line<'a> {
    pub(crate) metadata: &'a StreamMetadata,
    pub(crate) seq: u64,
    pub(crate) part: Option<Part>,
    /// Delivered after a gap notice that covers it.
    pub(crate) late: bool,
    /// Set if the line is a published platform message.
    pub(crate) message: Option<&'a PlatformMessage>,
    /// Publish time of the line's batch; the time of a line without a timestamp.
    pub(crate) published: PublishTime,
    /// The line as the log API returned it, with its timestamp and newline.
    pub(crate) raw: &'a [u8],
}

impl<'a> Line<'a> {
    /// Returns the line's time and its text without the newline.
    pub(crate) fn split(&self) -> (Timestamp, &'a [u8]) {
        let line = self.raw.strip_suffix(b"\n").unwrap_or(self.raw);
        Timestamp::split_line(line).unwrap_or((Timestamp::from(self.published), line))
    }
}

/// Consecutive lines of one stream, from one batch.
#[derive(Clone, Copy)]
pub(crate) struct Lines<'a> {
    pub(crate) key: StreamKey,
    pub(crate) metadata: &'a Arc<StreamMetadata>,
    /// Sequence number of the first line.
    pub(crate) seq: u64,
    pub(crate) count: u64,
    pub(crate) published: PublishTime,
    pub(crate) part: Option<Part>,
    pub(crate) late: bool,
    /// Set if this is a published platform message; `count` is then 1.
    pub(crate) message: Option<&'a PlatformMessage>,
    data: &'a [u8],
}

impl<'a> Lines<'a> {
    /// Returns `count` lines of an event, starting with its line number `first`, found at `bytes`
    /// of its data.
    pub(crate) fn of(key: StreamKey, event: &'a Event, first: u32, count: u32, bytes: Range<u32>) -> Self {
        let (data, part, late, message) = match &event.kind {
            EventKind::Lines {
                data,
                part,
                late,
                message,
                ..
            } => {
                let data = &data[bytes.start as usize..bytes.end as usize];
                (data, *part, *late, message.as_deref())
            }
            EventKind::Gap { .. } | EventKind::End => (&[][..], None, false, None),
        };
        Self {
            key,
            metadata: &event.metadata,
            seq: event.seq + u64::from(first),
            count: u64::from(count),
            published: event.published,
            part,
            late,
            message,
            data,
        }
    }

    pub(crate) fn seqs(&self) -> Range<u64> {
        self.seq..self.seq + self.count
    }

    /// Iterates over the lines.
    pub(crate) fn iter(self) -> impl Iterator<Item = Line<'a>> {
        let mut start = 0;
        let ends = memchr::memchr_iter(b'\n', self.data).map(|at| at + 1);
        ends.zip(self.seq..).map(move |(end, seq)| Line {
            metadata: self.metadata,
            seq,
            part: self.part,
            late: self.late,
            message: self.message,
            published: self.published,
            raw: &self.data[std::mem::replace(&mut start, end)..end],
        })
    }
}

/// Consecutive output of one kind: lines of one stream, or a notice.
pub(crate) enum Run<'a> {
    Lines(Lines<'a>),
    Notice(&'a NoticeLine),
}

/// A notice and its position.
#[derive(Clone, Debug)]
pub(crate) struct NoticeLine {
    /// Time printed in front of the notice.
    pub(crate) time: Timestamp,
    pub(crate) notice: Notice,
    /// The gap that the notice reports. `None` for a notice that concerns no stream.
    pub(crate) gap: Option<GapRange>,
}

/// Sequence numbers that were not delivered. An empty range is a gap of unknown size before
/// `seqs.start`.
#[derive(Clone, Debug)]
pub(crate) struct GapRange {
    pub(crate) key: StreamKey,
    pub(crate) metadata: Arc<StreamMetadata>,
    pub(crate) seqs: Range<u64>,
    /// The publisher's record. Several gaps of unknown size can be in front of the same line.
    pub(crate) record: Option<Box<Gap>>,
    /// The lines may still arrive: no collector has recorded them as lost.
    pub(crate) open: bool,
    pub(crate) published: PublishTime,
    /// Earliest and latest time of the lost lines, as far as they are known. A bound that is not
    /// recorded is that of a neighboring line, or the publish time.
    pub(crate) from: Timestamp,
    pub(crate) to: Timestamp,
}

impl NoticeLine {
    /// Creates a notice that concerns no stream, with the current time.
    pub(crate) fn now(notice: Notice) -> Self {
        Self {
            time: Timestamp::now(),
            notice,
            gap: None,
        }
    }

    /// Returns whether it says that lines of a stream may be repeated.
    pub(crate) fn announces_repeats(&self) -> bool {
        let record = self.gap.as_ref().and_then(|gap| gap.record.as_deref());
        record.is_some_and(|record| record.reason == GapReason::MayRepeat)
    }

    /// Returns the notice of a part of its gap.
    pub(crate) fn for_part(&self, gap: &GapRange, seqs: Range<u64>) -> Self {
        let lines = seqs.end - seqs.start;
        Self {
            time: self.time,
            notice: notice::gap(&gap.metadata, seqs.start, lines, gap.record.as_deref()),
            gap: Some(GapRange { seqs, ..gap.clone() }),
        }
    }

    /// Creates the notice of a gap event. `time`: that of a line next to the gap.
    pub(crate) fn gap(key: StreamKey, event: &Event, time: Timestamp) -> Self {
        let (lines, gap) = match &event.kind {
            EventKind::Gap { lines, gap } => (*lines, gap.as_ref()),
            EventKind::Lines { .. } | EventKind::End => (0, None),
        };
        let (from, to) = gap.map_or((None, None), |gap| (gap.from, gap.to));
        let from = from.unwrap_or(time);
        Self {
            time,
            notice: notice::gap(&event.metadata, event.seq, lines, gap),
            gap: Some(GapRange {
                key,
                metadata: Arc::clone(&event.metadata),
                seqs: event.seq..event.seq + lines,
                record: gap.cloned().map(Box::new),
                open: gap.is_none(),
                published: event.published,
                from,
                to: to.unwrap_or(Timestamp::from(event.published)).max(from),
            }),
        }
    }
}

/// Returns the line data of an event; empty for a gap or an end.
pub(crate) fn event_data(event: &Event) -> &[u8] {
    match &event.kind {
        EventKind::Lines { data, .. } => data,
        EventKind::Gap { .. } | EventKind::End => &[],
    }
}
