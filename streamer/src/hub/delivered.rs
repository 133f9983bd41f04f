//! What a reader has been shown already: by a read-back, or before it came back with a cursor.

use std::{collections::HashMap, ops::Range, sync::Arc};

use bus::{
    PublishTime,
    cursor::{Cursor, StreamKey},
    notice,
    reassembly::{Event, Ranges, What},
};

use crate::line::{GapRange, Lines, NoticeLine};

/// The seqs of every stream that were shown, or told to be missing.
#[derive(Debug, Default)]
pub(crate) struct Delivered {
    streams: HashMap<StreamKey, Known>,
    /// Of streams that are not known, all that the bus took before this is settled.
    before: PublishTime,
}

#[derive(Debug, Default)]
struct Known {
    lines: Ranges,
    /// Lines, and seqs that were told to be missing.
    told: Ranges,
    /// Losses of unknown count that were told.
    unknown: Vec<u64>,
    /// Nothing above has been heard of.
    next: u64,
    /// When the bus took the newest of it.
    last: PublishTime,
}

impl Known {
    fn show(&mut self, seqs: Range<u64>) {
        self.next = self.next.max(seqs.end);
        self.lines.insert(seqs.clone());
        self.told.insert(seqs);
    }

    fn tell(&mut self, seqs: Range<u64>) {
        self.next = self.next.max(seqs.end);
        if seqs.is_empty() {
            self.unknown.push(seqs.start);
        }
        self.told.insert(seqs);
    }

    fn is_told(&self, seqs: &Range<u64>) -> bool {
        if seqs.is_empty() {
            self.unknown.contains(&seqs.start)
        } else {
            self.told.covers(seqs)
        }
    }
}

impl From<&Cursor> for Delivered {
    fn from(cursor: &Cursor) -> Self {
        let streams = cursor.streams.iter().map(|(key, position)| {
            let mut known = Known::default();
            known.show(0..position.next);
            position.holes.iter().for_each(|hole| known.lines.remove(hole.clone()));
            (*key, known)
        });
        Self {
            streams: streams.collect(),
            before: cursor.before,
        }
    }
}

impl Delivered {
    /// Notes what an event showed.
    pub(crate) fn insert(&mut self, key: StreamKey, event: &Event) {
        let known = self.streams.entry(key).or_default();
        known.last = known.last.max(event.published);
        match event.what {
            What::Lines { lines, .. } => known.show(event.seq..event.seq + lines),
            What::Gap { lines, .. } => known.tell(event.seq..event.seq + lines),
            What::End => {}
        }
    }

    /// The seqs that are still to be shown. What was told to be missing and comes all the same is.
    pub(crate) fn rest_of(&self, lines: &Lines) -> Vec<Range<u64>> {
        match self.streams.get(&lines.key) {
            Some(known) => known.lines.missing_from(lines.seqs()),
            None if lines.published < self.before => Vec::new(),
            None => vec![lines.seqs()],
        }
    }

    /// Whether a gap need not be told any more.
    pub(crate) fn is_told(&self, gap: &GapRange) -> bool {
        match self.streams.get(&gap.key) {
            // What was lost before a known place, in a count that nobody knows, was told there.
            Some(known) => known.is_told(&gap.seqs) || (gap.seqs.is_empty() && gap.published < self.before),
            None => gap.published < self.before,
        }
    }

    /// The streams that spoke since then, and where each of them was heard up to.
    pub(crate) fn recent(&self, since: PublishTime) -> impl Iterator<Item = (StreamKey, u64)> + '_ {
        let recent = self.streams.iter().filter(move |(_, known)| known.last >= since);
        recent.map(|(key, known)| (*key, known.next))
    }

    /// Every stream that is known, and where each of them was heard up to.
    pub(crate) fn heard(&self) -> impl Iterator<Item = (StreamKey, u64)> + '_ {
        self.recent(PublishTime(0))
    }

    /// Where a stream was heard up to.
    pub(crate) fn next_of(&self, key: StreamKey) -> u64 {
        self.streams.get(&key).map_or(0, |known| known.next)
    }

    /// The seqs that are missing between what is known of a stream and what is first heard of it from somebody who did not know it.
    pub(crate) fn missing_before(&self, key: StreamKey, seq: u64) -> Option<Range<u64>> {
        let missing = self.streams.get(&key)?.next..seq;
        (!missing.is_empty()).then_some(missing)
    }

    /// Takes lines for a reader that goes on from here: what is still to be shown, and before it the gap that these lines show, where they do.
    ///
    /// Nobody else declares that gap: who read for this reader joined the stream behind it.
    pub(crate) fn go_on(&mut self, lines: &Lines) -> (Option<NoticeLine>, Vec<Range<u64>>) {
        let rest = self.rest_of(lines);
        if rest.is_empty() {
            return (None, rest);
        }
        let known = self.streams.entry(lines.key).or_insert_with(|| Known {
            next: lines.seq,
            ..Known::default()
        });
        let missing = known.next..lines.seq;
        let gap = (!lines.late && !missing.is_empty()).then(|| {
            known.tell(missing.clone());
            undelivered_before(lines, missing)
        });
        known.show(lines.seqs());
        (gap, rest)
    }

    /// Takes a gap for the same. True where it is to be told.
    pub(crate) fn go_on_behind(&mut self, gap: &GapRange) -> bool {
        let news = !self.is_told(gap);
        if news {
            let known = self.streams.entry(gap.key).or_default();
            known.tell(gap.seqs.clone());
        }
        news
    }
}

/// Tells that these seqs are missing before these lines.
pub(crate) fn undelivered_before(lines: &Lines, seqs: Range<u64>) -> NoticeLine {
    let (time, _) = lines.iter().next().map(|line| line.split()).unwrap_or_default();
    NoticeLine {
        time,
        notice: notice::gap(lines.metadata, seqs.start, seqs.end - seqs.start, None),
        gap: Some(GapRange {
            key: lines.key,
            metadata: Arc::clone(lines.metadata),
            seqs,
            open: true,
            published: lines.published,
        }),
    }
}
