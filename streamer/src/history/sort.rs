//! Sorts the lines of a history read by timestamp.

use std::sync::Arc;

use bus::{
    AppName, Timestamp,
    cursor::StreamKey,
    reassembly::{Event, EventKind},
};
use bytes::Bytes;
use system::collections::{HashMap, HashSet};

use crate::{
    frame::{Builder, Chunk, Entry, Frame, to_u32},
    line::{Line, NoticeLine, event_data},
    query::filter::Filter,
};

/// A batch is copied instead of held if less than one part in this many of it is wanted.
const SPARSE: usize = 4;

/// Events and the merge keys of their lines.
///
/// The merge key of a line is its timestamp, or the previous key of its stream if that is larger,
/// so stream order is always kept.
///
/// *Memory*: 24 bytes per line, and the batches themselves.
#[derive(Default)]
pub(crate) struct Sorter {
    filter: Option<Arc<Filter>>,
    chunks: Vec<Chunk>,
    entries: Vec<Entry>,
    /// The last line of each stream.
    ends: HashMap<StreamKey, StreamEnd>,
    /// Gaps that wait for the next line of their stream, each with its key: gaps before the first
    /// line have none until that line arrives, and the end of others decides whether they match.
    waiting_gaps: HashMap<StreamKey, Vec<(Event, Option<Timestamp>)>>,
    /// Gaps of unknown size that the lines after them have overtaken on the bus.
    overtaken_gaps: Vec<(StreamKey, Event)>,
    lines: u64,
    bytes: usize,
}

/// The last line of a stream.
#[derive(Clone, Copy)]
struct StreamEnd {
    /// Its key.
    at: Timestamp,
    /// The sequence number after it.
    next_seq: u64,
}

impl Sorter {
    /// Creates a sorter that keeps lines that match the filter.
    pub(crate) fn new(filter: Option<Arc<Filter>>) -> Self {
        Self {
            filter,
            ..Self::default()
        }
    }

    /// Adds an event. Events of one stream must be added in stream order.
    pub(crate) fn push(&mut self, key: StreamKey, event: Event) {
        if self
            .filter
            .as_ref()
            .is_some_and(|filter| !filter.matches_stream(&event.metadata))
        {
            return;
        }
        let end = self.ends.get(&key).copied();
        let last = end.map(|end| end.at);
        match (&event.kind, last) {
            (EventKind::Lines { .. }, _) => self.push_lines(key, event, end),
            (EventKind::Gap { lines: 0, .. }, _) if end.is_some_and(|end| event.seq < end.next_seq) => {
                self.overtaken_gaps.push((key, event));
            }
            (EventKind::Gap { gap, .. }, Some(at))
                if gap.as_ref().is_some_and(|gap| gap.to.is_some()) || !self.is_before_since(at) =>
            {
                self.push_gap(key, &event, at, None);
            }
            (EventKind::Gap { .. }, at) => self.waiting_gaps.entry(key).or_default().push((event, at)),
            (EventKind::End, _) => {}
        }
    }

    fn push_lines(&mut self, key: StreamKey, event: Event, before: Option<StreamEnd>) {
        let late = is_late(&event);
        let last = before.map(|before| before.at);
        let (data, published) = (event_data(&event), Timestamp::from(event.published));
        let time = |line: &[u8]| Timestamp::split_line(line).map_or(published, |(time, _)| time);
        let mut at = last.unwrap_or(Timestamp(i64::MIN));
        if !late && self.waiting_gaps.contains_key(&key) {
            let first = memchr::memchr(b'\n', data).map_or(data, |end| &data[..end]);
            self.place_waiting_gaps(key, time(first));
        }
        let chunk = to_u32(self.chunks.len());
        let (first_entry, mut start, mut wanted) = (self.entries.len(), 0, 0);
        for (line, end) in (0u32..).zip(memchr::memchr_iter(b'\n', data).map(|at| at + 1)) {
            let raw = &data[start..end];
            // A late line is sorted by its own time.
            let line_key = if late { time(raw) } else { time(raw).max(at) };
            at = if late { at } else { line_key };
            if self.matches(&event, line, raw) {
                wanted += raw.len();
                self.entries.push(Entry {
                    key: line_key,
                    chunk,
                    line,
                    start: to_u32(start),
                    end: to_u32(end),
                });
            }
            start = end;
        }
        if at > Timestamp(i64::MIN) {
            let next_seq = if late {
                before.map_or(0, |before| before.next_seq)
            } else {
                event.seq + line_count(&event)
            };
            self.ends.insert(key, StreamEnd { at, next_seq });
        }
        self.store(key, event, first_entry, wanted);
    }

    /// Stores the event whose entries start at `first`. If few of its lines are wanted, stores copies
    /// of those lines instead.
    fn store(&mut self, key: StreamKey, event: Event, first: usize, wanted: usize) {
        self.lines += (self.entries.len() - first) as u64;
        if wanted == 0 {
            return;
        }
        if wanted >= event.data_len() / SPARSE {
            self.bytes += event.data_len();
            self.chunks.push(Chunk::Lines { key, event });
            return;
        }
        for entry in &mut self.entries[first..] {
            let raw = &event_data(&event)[entry.start as usize..entry.end as usize];
            let mut copied = Event {
                seq: event.seq + u64::from(entry.line),
                kind: event.kind.clone(),
                ..event.clone()
            };
            if let EventKind::Lines { data, lines, .. } = &mut copied.kind {
                (*data, *lines) = (Bytes::copy_from_slice(raw), 1);
            }
            *entry = Entry {
                key: entry.key,
                chunk: to_u32(self.chunks.len()),
                line: 0,
                start: 0,
                end: to_u32(raw.len()),
            };
            self.bytes += raw.len() + size_of::<Chunk>();
            self.chunks.push(Chunk::Lines { key, event: copied });
        }
    }

    fn matches(&self, event: &Event, line: u32, raw: &[u8]) -> bool {
        self.filter.as_ref().is_none_or(|filter| {
            filter.matches(&Line {
                metadata: &event.metadata,
                seq: event.seq + u64::from(line),
                part: None,
                late: false,
                message: None,
                published: event.published,
                raw,
            })
        })
    }

    fn is_before_since(&self, time: Timestamp) -> bool {
        let since = self.filter.as_ref().and_then(|filter| filter.since);
        since.is_some_and(|since| time < since)
    }

    /// Adds a gap. `next`: the time of the next line of its stream.
    fn push_gap(&mut self, key: StreamKey, event: &Event, at: Timestamp, next: Option<Timestamp>) {
        let entry = self.notice_entry(key, event, at, next);
        self.entries.extend(entry);
    }

    /// Stores the notice of a gap and returns its entry. `None` if it does not match the filter.
    fn notice_entry(&mut self, key: StreamKey, event: &Event, at: Timestamp, next: Option<Timestamp>) -> Option<Entry> {
        let mut notice = NoticeLine::gap(key, event, at);
        let is_end_recorded = matches!(&event.kind, EventKind::Gap { gap: Some(gap), .. } if gap.to.is_some());
        if let (Some(gap), Some(next), false) = (&mut notice.gap, next, is_end_recorded) {
            gap.to = next.max(gap.from);
        }
        let is_wanted = self.filter.as_ref().is_none_or(|filter| filter.matches_notice(&notice));
        is_wanted.then(|| {
            self.chunks.push(Chunk::Notice(Box::new(notice)));
            Entry::notice(at, to_u32(self.chunks.len() - 1))
        })
    }

    /// Places the gaps before a line with this time.
    fn place_waiting_gaps(&mut self, key: StreamKey, next: Timestamp) {
        for (gap, at) in self.waiting_gaps.remove(&key).into_iter().flatten() {
            self.push_gap(key, &gap, at.unwrap_or(next), Some(next));
        }
    }

    /// Places the gaps that no line follows. Those of streams without lines are placed at the time of a
    /// line next to one of them, if it was recorded: lines that are read long after they were printed
    /// follow the gap, but are older than its publish time.
    fn place_remaining_gaps(&mut self) {
        for (key, gaps) in std::mem::take(&mut self.waiting_gaps) {
            let recorded = gaps.iter().filter_map(|(gap, _)| recorded_time(gap)).max();
            for (gap, at) in gaps {
                let at = at.or(recorded).unwrap_or(Timestamp::from(gap.published));
                self.push_gap(key, &gap, at, None);
            }
        }
    }

    /// Places the gaps that lines have overtaken in front of the first of these lines.
    fn place_overtaken_gaps(&mut self) {
        let gaps = std::mem::take(&mut self.overtaken_gaps);
        if gaps.is_empty() {
            return;
        }
        let mut placed: Vec<(usize, Entry)> = Vec::new();
        for ((key, gap), place) in gaps.iter().zip(self.places_of(&gaps)) {
            let Some(place) = place else {
                // The filter has dropped the lines.
                let at = self.ends.get(key).map(|end| end.at);
                self.push_gap(*key, gap, at.unwrap_or(Timestamp::from(gap.published)), None);
                continue;
            };
            let at = self.entries[place].key;
            placed.extend(self.notice_entry(*key, gap, at, Some(at)).map(|entry| (place, entry)));
        }
        placed.sort_by_key(|(place, _)| *place);
        let mut placed = placed.into_iter().peekable();
        for (index, entry) in std::mem::take(&mut self.entries).into_iter().enumerate() {
            while let Some((_, notice)) = placed.next_if(|(place, _)| *place == index) {
                self.entries.push(notice);
            }
            self.entries.push(entry);
        }
    }

    /// Returns the index of the entry in front of which each gap belongs: that of the line with the
    /// lowest sequence number from the gap's on.
    fn places_of(&self, gaps: &[(StreamKey, Event)]) -> Vec<Option<usize>> {
        let mut by_stream: HashMap<StreamKey, Vec<usize>> = HashMap::default();
        for (number, (key, _)) in gaps.iter().enumerate() {
            by_stream.entry(*key).or_default().push(number);
        }
        let mut places: Vec<Option<(u64, usize)>> = vec![None; gaps.len()];
        for (index, entry) in self.entries.iter().enumerate() {
            let Chunk::Lines { key, event } = &self.chunks[entry.chunk as usize] else {
                continue;
            };
            let seq = event.seq + u64::from(entry.line);
            for number in by_stream.get(key).into_iter().flatten().filter(|_| !is_late(event)) {
                let is_first = places[*number].is_none_or(|(first, _)| seq < first);
                if seq >= gaps[*number].1.seq && is_first {
                    places[*number] = Some((seq, index));
                }
            }
        }
        places.into_iter().map(|place| place.map(|(_, index)| index)).collect()
    }

    /// Returns the number of the app's lines that are held.
    pub(crate) fn lines(&self) -> u64 {
        self.lines
    }

    /// Returns the bytes held by batches and entries.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes + self.entries.len() * size_of::<Entry>()
    }

    /// Drops everything before the newest `lines` lines, but the notices that lines of a stream may be
    /// repeated if lines of it are kept. Returns whether anything was dropped.
    pub(crate) fn keep_last(&mut self, lines: u64) -> bool {
        if self.lines <= lines {
            return false;
        }
        self.place_overtaken_gaps();
        self.sort();
        let mut surplus = self.lines - lines;
        let chunks = &self.chunks;
        let is_line = |entry: &Entry| matches!(chunks[entry.chunk as usize], Chunk::Lines { .. });
        let first = self.entries.iter().position(|entry| {
            let kept = surplus == 0;
            surplus -= u64::from(!kept && is_line(entry));
            kept
        });
        let first = first.unwrap_or(self.entries.len());
        let repeats = self.repeat_notices_before(first);
        drop(self.entries.splice(..first, repeats));
        self.lines = lines;
        self.drop_unused_chunks();
        true
    }

    /// Returns the notices before this entry that lines of a stream may be repeated, if lines of the
    /// stream follow: sorted by time, they can be older than the lines that are repeated.
    fn repeat_notices_before(&self, first: usize) -> Vec<Entry> {
        let (dropped, kept) = self.entries.split_at(first);
        let chunk = |entry: &Entry| &self.chunks[entry.chunk as usize];
        let is_repeat = |entry: &Entry| matches!(chunk(entry), Chunk::Notice(notice) if notice.announces_repeats());
        let mut repeats: Vec<Entry> = dropped.iter().copied().filter(is_repeat).collect();
        if repeats.is_empty() {
            return repeats;
        }
        let streams = kept.iter().filter_map(|entry| match chunk(entry) {
            Chunk::Lines { key, .. } => Some(*key),
            Chunk::Notice(_) => None,
        });
        let streams: HashSet<StreamKey> = streams.collect();
        repeats.retain(|entry| {
            let Chunk::Notice(notice) = chunk(entry) else {
                return false;
            };
            notice.gap.as_ref().is_some_and(|gap| streams.contains(&gap.key))
        });
        repeats
    }

    fn drop_unused_chunks(&mut self) {
        let mut indexes: Vec<Option<u32>> = vec![None; self.chunks.len()];
        self.entries
            .iter()
            .for_each(|entry| indexes[entry.chunk as usize] = Some(0));
        for (next, index) in (0..).zip(indexes.iter_mut().flatten()) {
            *index = next;
        }
        let mut used = indexes.iter().map(Option::is_some);
        self.chunks.retain(|_| used.next().unwrap_or_default());
        let bytes = |chunk: &Chunk| match chunk {
            Chunk::Lines { event, .. } => event.data_len(),
            Chunk::Notice(_) => 0,
        };
        self.bytes = self.chunks.iter().map(bytes).sum();
        for entry in &mut self.entries {
            entry.chunk = indexes[entry.chunk as usize].unwrap_or_default();
        }
    }

    fn sort(&mut self) {
        // The sort is stable: entries with equal keys keep their stream order.
        if !self.entries.is_sorted_by_key(|entry| entry.key) {
            self.entries.sort_by_key(|entry| entry.key);
        }
    }

    /// Returns all lines, oldest first.
    pub(crate) fn into_frames(mut self, app: &AppName) -> Vec<Arc<Frame>> {
        self.place_overtaken_gaps();
        self.place_remaining_gaps();
        self.sort();
        let (mut frames, mut builder) = (Vec::new(), Builder::new(app.clone()));
        for entry in &self.entries {
            builder.add(entry, &self.chunks[entry.chunk as usize]);
            if builder.is_full() {
                frames.push(Arc::new(
                    std::mem::replace(&mut builder, Builder::new(app.clone())).finish(),
                ));
            }
        }
        if !builder.is_empty() {
            frames.push(Arc::new(builder.finish()));
        }
        frames
    }
}

/// Returns whether lines arrived after their gap was reported.
fn is_late(event: &Event) -> bool {
    matches!(event.kind, EventKind::Lines { late: true, .. })
}

/// Returns the number of lines of an event.
fn line_count(event: &Event) -> u64 {
    match event.kind {
        EventKind::Lines { lines, .. } => lines,
        EventKind::Gap { .. } | EventKind::End => 0,
    }
}

/// Returns the time of a line next to a gap, if its publisher has recorded one: of the one behind it,
/// so that the gap follows the last lines of older streams.
fn recorded_time(event: &Event) -> Option<Timestamp> {
    match &event.kind {
        EventKind::Gap { gap, .. } => gap.as_ref().and_then(|gap| gap.to.or(gap.from)),
        EventKind::Lines { .. } | EventKind::End => None,
    }
}

#[cfg(test)]
mod tests {
    use bus::{Gap, GapReason, StreamMetadata};

    use super::*;
    use crate::{
        line::Run,
        testing::{at, event, metadata},
    };

    /// Returns a gap of unknown size after a line with the time `from`.
    fn gap(metadata: &Arc<StreamMetadata>, seq: u64, reason: GapReason, from: Option<i64>) -> Event {
        let gap = Gap {
            lines: 0,
            reason,
            from: from.map(|millis| Timestamp::from(at(millis))),
            to: None,
        };
        gap_event(metadata, seq, 0, Some(gap))
    }

    fn gap_event(metadata: &Arc<StreamMetadata>, seq: u64, lines: u64, gap: Option<Gap>) -> Event {
        Event {
            metadata: Arc::clone(metadata),
            seq,
            published: at(100),
            kind: EventKind::Gap { lines, gap },
        }
    }

    fn sorter(events: Vec<Event>) -> Sorter {
        let mut sorter = Sorter::new(None);
        for event in events {
            sorter.push(StreamKey::of(&event.metadata.stream), event);
        }
        sorter
    }

    /// Returns processes and sequence numbers of lines, and the reasons of notices.
    fn output(sorter: Sorter) -> Vec<String> {
        let frames = sorter.into_frames(&"shop".parse().unwrap());
        let mut output = Vec::new();
        for run in frames.iter().flat_map(|frame| frame.runs()) {
            match run {
                Run::Lines(lines) => {
                    output.extend(lines.seqs().map(|seq| format!("{} {seq}", lines.metadata.process)));
                }
                Run::Notice(notice) => output.push(notice.notice.reason.to_string()),
            }
        }
        output
    }

    #[test]
    fn a_gap_that_its_lines_have_overtaken_is_placed_in_front_of_them() {
        let (old, new) = (metadata("old"), metadata("new"));
        let sorter = sorter(vec![
            event(&old, 0, &[10, 20], 30),
            event(&new, 0, &[10, 20], 90),
            gap(&new, 1, GapReason::Suspected, None),
            gap(&new, 0, GapReason::MayRepeat, None),
        ]);
        let expected = ["old 0", "may_repeat", "new 0", "old 1", "suspected", "new 1"];
        assert_eq!(output(sorter), expected);
    }

    #[test]
    fn the_newest_lines_keep_the_notices_that_they_may_be_repeated() {
        let (gone, old, new) = (metadata("gone"), metadata("old"), metadata("new"));
        let mut sorter = sorter(vec![
            gap(&gone, 0, GapReason::MayRepeat, None),
            event(&gone, 0, &[5], 30),
            gap(&new, 0, GapReason::Suspected, None),
            event(&old, 0, &[10, 20], 30),
            event(&new, 0, &[10, 20], 90),
            gap(&new, 0, GapReason::MayRepeat, None),
        ]);
        assert!(sorter.keep_last(2));
        assert_eq!(output(sorter), ["may_repeat", "old 1", "new 1"]);
    }

    #[test]
    fn gaps_of_a_stream_without_lines_are_placed_next_to_the_line_that_was_recorded() {
        let (lost, new) = (metadata("lost"), metadata("new"));
        let sorter = sorter(vec![
            gap_event(&lost, 0, 3, None),
            gap(&lost, 3, GapReason::Suspected, Some(5)),
            event(&new, 0, &[10, 20], 120),
        ]);
        assert_eq!(output(sorter), ["undelivered", "suspected", "new 0", "new 1"]);
    }
}
