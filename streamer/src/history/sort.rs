//! Sorts the lines of a history read by timestamp.

use std::sync::Arc;

use bus::{
    AppName, Timestamp,
    cursor::StreamKey,
    reassembly::{Event, EventKind},
};
use bytes::Bytes;
use system::collections::HashMap;

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
    /// Last key of each stream.
    keys: HashMap<StreamKey, Timestamp>,
    /// Gaps that wait for the next line of their stream, each with its key: gaps before the first
    /// line have none until that line arrives, and the end of others decides whether they match.
    waiting_gaps: HashMap<StreamKey, Vec<(Event, Option<Timestamp>)>>,
    lines: u64,
    bytes: usize,
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
        let last = self.keys.get(&key).copied();
        match (&event.kind, last) {
            (EventKind::Lines { .. }, _) => self.push_lines(key, event, last),
            (EventKind::Gap { gap, .. }, Some(at))
                if gap.as_ref().is_some_and(|gap| gap.to.is_some()) || !self.is_before_since(at) =>
            {
                self.push_gap(key, &event, at, None);
            }
            (EventKind::Gap { .. }, at) => self.waiting_gaps.entry(key).or_default().push((event, at)),
            (EventKind::End, _) => {}
        }
    }

    fn push_lines(&mut self, key: StreamKey, event: Event, last: Option<Timestamp>) {
        let late = matches!(event.kind, EventKind::Lines { late: true, .. });
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
            self.keys.insert(key, at);
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
        let mut notice = NoticeLine::gap(key, event, at);
        let is_end_recorded = matches!(&event.kind, EventKind::Gap { gap: Some(gap), .. } if gap.to.is_some());
        if let (Some(gap), Some(next), false) = (&mut notice.gap, next, is_end_recorded) {
            gap.to = next.max(gap.from);
        }
        if self.filter.as_ref().is_none_or(|filter| filter.matches_notice(&notice)) {
            self.entries.push(Entry::notice(at, to_u32(self.chunks.len())));
            self.chunks.push(Chunk::Notice(Box::new(notice)));
        }
    }

    /// Places the gaps before a line with this time.
    fn place_waiting_gaps(&mut self, key: StreamKey, next: Timestamp) {
        for (gap, at) in self.waiting_gaps.remove(&key).into_iter().flatten() {
            self.push_gap(key, &gap, at.unwrap_or(next), Some(next));
        }
    }

    /// Places the gaps that no line follows; those of streams without lines at their publish time.
    fn place_remaining_gaps(&mut self) {
        for (key, gaps) in std::mem::take(&mut self.waiting_gaps) {
            for (gap, at) in gaps {
                self.push_gap(key, &gap, at.unwrap_or(Timestamp::from(gap.published)), None);
            }
        }
    }

    /// Returns the number of the app's lines that are held.
    pub(crate) fn lines(&self) -> u64 {
        self.lines
    }

    /// Returns the bytes held by batches and entries.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes + self.entries.len() * size_of::<Entry>()
    }

    /// Drops everything before the newest `lines` lines. Returns whether anything was dropped.
    pub(crate) fn keep_last(&mut self, lines: u64) -> bool {
        if self.lines <= lines {
            return false;
        }
        self.sort();
        let mut surplus = self.lines - lines;
        let chunks = &self.chunks;
        let is_line = |entry: &Entry| matches!(chunks[entry.chunk as usize], Chunk::Lines { .. });
        let first = self.entries.iter().position(|entry| {
            let kept = surplus == 0;
            surplus -= u64::from(!kept && is_line(entry));
            kept
        });
        self.entries.drain(..first.unwrap_or(self.entries.len()));
        self.lines = lines;
        self.drop_unused_chunks();
        true
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
