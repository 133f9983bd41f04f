//! Puts all that a read-back brings in the order of its timestamps.

use std::{collections::HashMap, sync::Arc};

use bus::{
    AppName, Timestamp,
    cursor::StreamKey,
    reassembly::{Event, EventKind},
};
use bytes::Bytes;

use crate::{
    filter::Filter,
    frame::{self, Builder, Entry, Frame, Line, Source, Told, narrow},
};

/// A batch of which less than one part in so many is wanted is not held: what is wanted is copied.
const SPARSE: usize = 4;

/// Events, and their lines by merge key.
///
/// A line's merge key is its timestamp, or its stream's previous key where that is larger: so a stream's own order always holds. Memory: 24 bytes a line beside the
/// batches themselves.
#[derive(Default)]
pub(crate) struct Gather {
    filter: Option<Arc<Filter>>,
    sources: Vec<Source>,
    entries: Vec<Entry>,
    keys: HashMap<StreamKey, Timestamp>,
    /// Gaps in front of the first line of their stream: they have no key until that comes.
    unplaced: HashMap<StreamKey, Vec<Event>>,
    lines: u64,
    bytes: usize,
}

impl Gather {
    /// One that keeps what the filter takes.
    pub(crate) fn new(filter: Option<Arc<Filter>>) -> Self {
        Self {
            filter,
            ..Self::default()
        }
    }

    /// Adds an event. Events of one stream are added in their order.
    pub(crate) fn push(&mut self, key: StreamKey, event: Event) {
        if self
            .filter
            .as_ref()
            .is_some_and(|filter| !filter.takes_stream(&event.metadata))
        {
            return;
        }
        let last = self.keys.get(&key).copied();
        match (&event.kind, last) {
            (EventKind::Lines { .. }, _) => self.push_lines(key, event, last),
            (EventKind::Gap { .. }, Some(at)) => self.push_gap(key, &event, at),
            (EventKind::Gap { .. }, None) => self.unplaced.entry(key).or_default().push(event),
            (EventKind::End, _) => {}
        }
    }

    fn push_lines(&mut self, key: StreamKey, event: Event, last: Option<Timestamp>) {
        let late = matches!(event.kind, EventKind::Lines { late: true, .. });
        let (data, taken) = (frame::data(&event), Timestamp::from(event.published));
        let time = |line: &[u8]| Timestamp::split_line(line).map_or(taken, |(time, _)| time);
        let mut at = last.unwrap_or(Timestamp(i64::MIN));
        if last.is_none() && !late {
            let first = memchr::memchr(b'\n', data).map_or(data, |end| &data[..end]);
            self.place_gaps(key, time(first));
        }
        let source = narrow(self.sources.len());
        let (begun, mut start, mut wanted) = (self.entries.len(), 0, 0);
        for (line, end) in (0u32..).zip(memchr::memchr_iter(b'\n', data).map(|at| at + 1)) {
            let raw = &data[start..end];
            // A late line stands at its own time: its place in the stream is gone.
            let stands = if late { time(raw) } else { time(raw).max(at) };
            at = if late { at } else { stands };
            if self.takes(&event, line, raw) {
                wanted += raw.len();
                self.entries.push(Entry {
                    key: stands,
                    source,
                    line,
                    start: narrow(start),
                    end: narrow(end),
                });
            }
            start = end;
        }
        if at > Timestamp(i64::MIN) {
            self.keys.insert(key, at);
        }
        self.hold(key, event, begun, wanted);
    }

    /// Holds the event of the entries from `begun` on, or where it has few of them a copy of their lines.
    fn hold(&mut self, key: StreamKey, event: Event, begun: usize, wanted: usize) {
        self.lines += (self.entries.len() - begun) as u64;
        if wanted == 0 {
            return;
        }
        if wanted >= event.data_len() / SPARSE {
            self.bytes += event.data_len();
            self.sources.push(Source::Lines { key, event });
            return;
        }
        for entry in &mut self.entries[begun..] {
            let raw = &frame::data(&event)[entry.start as usize..entry.end as usize];
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
                source: narrow(self.sources.len()),
                line: 0,
                start: 0,
                end: narrow(raw.len()),
            };
            self.bytes += raw.len() + size_of::<Source>();
            self.sources.push(Source::Lines { key, event: copied });
        }
    }

    fn takes(&self, event: &Event, line: u32, raw: &[u8]) -> bool {
        self.filter.as_ref().is_none_or(|filter| {
            filter.takes(&Line {
                metadata: &event.metadata,
                seq: event.seq + u64::from(line),
                part: None,
                late: false,
                published: event.published,
                raw,
            })
        })
    }

    fn push_gap(&mut self, key: StreamKey, event: &Event, at: Timestamp) {
        let told = Told::gap(key, event, at);
        if self.filter.as_ref().is_none_or(|filter| filter.takes_told(&told)) {
            self.entries.push(Entry::told(at, narrow(self.sources.len())));
            self.sources.push(Source::Told(told));
        }
    }

    /// The first line of a stream comes with this key: so do the gaps in front of it.
    fn place_gaps(&mut self, key: StreamKey, at: Timestamp) {
        for gap in self.unplaced.remove(&key).into_iter().flatten() {
            self.push_gap(key, &gap, at);
        }
    }

    /// Gaps that no line follows stand at the time at which the bus was told.
    fn place_remaining_gaps(&mut self) {
        for (key, gaps) in std::mem::take(&mut self.unplaced) {
            for gap in gaps {
                self.push_gap(key, &gap, Timestamp::from(gap.published));
            }
        }
    }

    /// Lines of the app that are gathered.
    pub(crate) fn lines(&self) -> u64 {
        self.lines
    }

    /// Bytes that are held: the batches, and what is kept a line.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes + self.entries.len() * size_of::<Entry>()
    }

    /// Forgets all but the newest `lines` lines of the app, and the notices among them. True where something was forgotten.
    pub(crate) fn keep_last(&mut self, lines: u64) -> bool {
        if self.lines <= lines {
            return false;
        }
        self.sort();
        let mut surplus = self.lines - lines;
        let sources = &self.sources;
        let is_line = |entry: &Entry| matches!(sources[entry.source as usize], Source::Lines { .. });
        let first = self.entries.iter().position(|entry| {
            let kept = surplus == 0;
            surplus -= u64::from(!kept && is_line(entry));
            kept
        });
        self.entries.drain(..first.unwrap_or(self.entries.len()));
        self.lines = lines;
        self.drop_unused();
        true
    }

    /// Batches of which no line is left need not be held in memory.
    fn drop_unused(&mut self) {
        let mut places: Vec<Option<u32>> = vec![None; self.sources.len()];
        self.entries
            .iter()
            .for_each(|entry| places[entry.source as usize] = Some(0));
        for (next, place) in (0..).zip(places.iter_mut().flatten()) {
            *place = next;
        }
        let mut used = places.iter().map(Option::is_some);
        self.sources.retain(|_| used.next().unwrap_or_default());
        let held = |source: &Source| match source {
            Source::Lines { event, .. } => event.data_len(),
            Source::Told(_) => 0,
        };
        self.bytes = self.sources.iter().map(held).sum();
        for entry in &mut self.entries {
            entry.source = places[entry.source as usize].unwrap_or_default();
        }
    }

    fn sort(&mut self) {
        // Stable: what was added in a stream's order keeps it among equal keys.
        if !self.entries.is_sorted_by_key(|entry| entry.key) {
            self.entries.sort_by_key(|entry| entry.key);
        }
    }

    /// All of it, in frames.
    pub(crate) fn into_frames(mut self, app: &AppName) -> Vec<Arc<Frame>> {
        self.place_remaining_gaps();
        self.sort();
        let (mut frames, mut builder) = (Vec::new(), Builder::new(app.clone()));
        for entry in &self.entries {
            builder.add(entry, &self.sources[entry.source as usize]);
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
