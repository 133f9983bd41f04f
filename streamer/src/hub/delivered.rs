//! What a reader has already received: from the history, or before it reconnected with a cursor.

use std::{ops::Range, sync::Arc};

use bus::{
    Gap, PublishTime, StreamProgress,
    cursor::{Cursor, StreamKey},
    notice,
    reassembly::{Event, EventKind},
};
use system::collections::HashMap;

use crate::line::{GapRange, Lines, NoticeLine};

/// The reader's progress in every stream.
#[derive(Debug, Default)]
pub(crate) struct Delivered {
    streams: HashMap<StreamKey, StreamProgress>,
    /// Of streams that the cursor does not list, everything published before this is delivered.
    before: PublishTime,
    /// Of such streams, the end of what was seen to be published before it: a publisher that was
    /// killed publishes again what it does not know to be accepted.
    unlisted: HashMap<StreamKey, u64>,
}

impl From<&Cursor> for Delivered {
    fn from(cursor: &Cursor) -> Self {
        Self {
            streams: cursor.streams.iter().cloned().collect(),
            before: cursor.before,
            unlisted: HashMap::default(),
        }
    }
}

fn report(progress: &mut StreamProgress, gap: Range<u64>, record: Option<&Gap>) {
    if gap.is_empty() {
        progress.skip_to(gap.start);
        progress.report_unknown_gap(gap.start, record.cloned());
    } else {
        progress.report_gap(gap);
    }
}

/// Returns whether a gap of unknown size was reported.
fn is_reported(progress: &StreamProgress, gap: &GapRange) -> bool {
    match gap.record.as_deref() {
        Some(record) => progress.has_reported(gap.seqs.start, record),
        None => progress.has_unknown_gap(gap.seqs.start),
    }
}

impl Delivered {
    /// Records an event.
    pub(crate) fn insert(&mut self, key: StreamKey, event: &Event) {
        let progress = self.streams.entry(key).or_default();
        progress.record_published(event.published);
        match event.kind {
            EventKind::Lines { lines, .. } => progress.deliver(event.seq..event.seq + lines),
            EventKind::Gap { lines, ref gap } => report(progress, event.seq..event.seq + lines, gap.as_ref()),
            EventKind::End => {}
        }
    }

    /// Returns the sequence numbers that are still to be delivered, including late lines of
    /// reported gaps.
    pub(crate) fn rest_of(&self, lines: &Lines) -> Vec<Range<u64>> {
        let mut rest = match self.streams.get(&lines.key) {
            Some(progress) => progress.remaining_of(lines.seqs()),
            None if lines.published < self.before => return Vec::new(),
            None => vec![lines.seqs()],
        };
        if let Some(delivered) = self.unlisted.get(&lines.key) {
            if lines.published < self.before {
                return Vec::new();
            }
            rest.iter_mut().for_each(|seqs| seqs.start = seqs.start.max(*delivered));
            rest.retain(|seqs| !seqs.is_empty());
        }
        rest
    }

    /// Returns the parts of a gap that are still to be reported: those that were neither delivered nor
    /// reported. A gap of unknown size has one part.
    pub(crate) fn unreported_of(&self, gap: &GapRange) -> Vec<Range<u64>> {
        let is_reported = match self.streams.get(&gap.key) {
            // A gap of unknown size from before the cursor was reported there.
            Some(progress) if gap.seqs.is_empty() => is_reported(progress, gap) || gap.published < self.before,
            Some(progress) => return progress.unprocessed_of(gap.seqs.clone()),
            None => gap.published < self.before,
        };
        let is_new = !is_reported;
        is_new.then(|| gap.seqs.clone()).into_iter().collect()
    }

    /// Returns the streams with batches published since then, and their next sequence numbers.
    pub(crate) fn recent(&self, since: PublishTime) -> impl Iterator<Item = (StreamKey, u64)> + '_ {
        let streams = self.streams.iter();
        let recent = streams.filter(move |(_, progress)| progress.last_published() >= since);
        recent.map(|(key, progress)| (*key, progress.next()))
    }

    /// Returns all streams and their next sequence numbers.
    pub(crate) fn streams(&self) -> impl Iterator<Item = (StreamKey, u64)> + '_ {
        self.recent(PublishTime(0))
    }

    /// Returns the start of the first reported gap of each stream that has one.
    pub(crate) fn first_gaps(&self) -> impl Iterator<Item = (StreamKey, u64)> + '_ {
        let streams = self.streams.iter();
        streams.filter_map(|(key, progress)| Some((*key, progress.gaps().next()?.start)))
    }

    /// Returns the next sequence number of a stream; 0 if it is not listed.
    pub(crate) fn next_of(&self, key: StreamKey) -> u64 {
        self.streams.get(&key).map_or(0, StreamProgress::next)
    }

    /// Returns the sequence numbers between the progress of a listed stream and `seq`, the first one
    /// that a new reading of the stream delivers.
    pub(crate) fn missing_before(&self, key: StreamKey, seq: u64) -> Option<Range<u64>> {
        let missing = self.streams.get(&key)?.next()..seq;
        (!missing.is_empty()).then_some(missing)
    }

    /// Records lines for a reader that continues from here. Returns the part that is still to be
    /// delivered, and the gap in front of it, if there is one.
    ///
    /// Reassembly does not report that gap: it joined the stream after it.
    pub(crate) fn resume_with_lines(&mut self, lines: &Lines) -> (Option<NoticeLine>, Vec<Range<u64>>) {
        let is_unlisted = !self.streams.contains_key(&lines.key) || self.unlisted.contains_key(&lines.key);
        if is_unlisted {
            let delivered = self.unlisted.entry(lines.key).or_default();
            if lines.published < self.before {
                *delivered = lines.seqs().end.max(*delivered);
            }
        }
        let rest = self.rest_of(lines);
        if rest.is_empty() {
            return (None, rest);
        }
        let progress = self
            .streams
            .entry(lines.key)
            .or_insert_with(|| StreamProgress::joining_at(lines.seq));
        let missing = progress.next()..lines.seq;
        let gap = (!lines.late && !missing.is_empty()).then(|| {
            system::probe!("resume: a gap before the first batch");
            progress.report_gap(missing.clone());
            undelivered_before(lines, missing)
        });
        progress.deliver(lines.seqs());
        (gap, rest)
    }

    /// Records a gap for a reader that continues from here. Returns the parts that are to be reported.
    pub(crate) fn resume_with_gap(&mut self, gap: &GapRange) -> Vec<Range<u64>> {
        let unreported = self.unreported_of(gap);
        if !unreported.is_empty() {
            system::probe!("resume: a gap that the client does not know");
            let progress = self.streams.entry(gap.key).or_default();
            report(progress, gap.seqs.clone(), gap.record.as_deref());
        }
        unreported
    }
}

/// Creates the notice of a gap in front of these lines.
pub(crate) fn undelivered_before(lines: &Lines, seqs: Range<u64>) -> NoticeLine {
    let (time, _) = lines.iter().next().map(|line| line.split()).unwrap_or_default();
    NoticeLine {
        time,
        notice: notice::gap(lines.metadata, seqs.start, seqs.end - seqs.start, None),
        gap: Some(GapRange {
            key: lines.key,
            metadata: Arc::clone(lines.metadata),
            seqs,
            record: None,
            open: true,
            published: lines.published,
            from: time,
            to: time,
        }),
    }
}

#[cfg(test)]
mod tests {
    use bus::Timestamp;

    use super::*;
    use crate::testing::{at, event, metadata};

    #[test]
    fn what_an_unlisted_stream_published_before_the_cursor_is_not_delivered_when_it_is_published_again() {
        let metadata = metadata("web");
        let key = StreamKey::of(&metadata.stream);
        let cursor = Cursor {
            before: at(5),
            ..Cursor::default()
        };
        let mut delivered = Delivered::from(&cursor);
        let mut rest = |seqs: Range<u64>, published: i64| {
            let seconds: Vec<i64> = seqs.clone().map(|_| 0).collect();
            let event = event(&metadata, seqs.start, &seconds, published);
            let lines = Lines::of(key, &event, 0, seconds.len() as u32, 0..0);
            delivered.resume_with_lines(&lines).1
        };
        assert!(rest(2..6, 4).is_empty());
        assert_eq!(rest(2..8, 6), std::slice::from_ref(&(6..8)));
        assert!(rest(0..2, 3).is_empty(), "an older batch that arrives later");
        assert_eq!(rest(8..9, 7), std::slice::from_ref(&(8..9)));
    }

    #[test]
    fn a_client_that_resumes_gets_the_part_of_a_gap_that_it_does_not_have() {
        let metadata = metadata("web");
        let key = StreamKey::of(&metadata.stream);
        let cursor = Cursor {
            before: at(0),
            streams: vec![(key, StreamProgress::new(5, []))],
            coarse: false,
        };
        let mut delivered = Delivered::from(&cursor);
        let gap = Event {
            metadata,
            seq: 2,
            published: at(1),
            kind: EventKind::Gap { lines: 7, gap: None },
        };
        let notice = NoticeLine::gap(key, &gap, Timestamp(0));
        let gap = notice.gap.clone().unwrap();
        let parts = delivered.resume_with_gap(&gap);
        assert_eq!(parts, std::slice::from_ref(&(5..9)));
        let part = notice.for_part(&gap, parts[0].clone());
        assert_eq!((part.notice.first, part.notice.count), (Some(5), Some(4)));
        assert!(delivered.resume_with_gap(&gap).is_empty());
    }
}
