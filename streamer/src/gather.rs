//! Puts settled events of many streams in the order of their timestamps.

use std::collections::HashMap;

use bus::{
    StreamId, Timestamp,
    reassembly::{Event, What},
};
use bytes::BytesMut;

use crate::{
    frame::{Frame, Run},
    notice, text,
};

/// Bytes after which a frame is full. Frames are what a slow tail waits for and what the kernel is handed; a single line may make one larger.
const FRAME_BYTES: usize = 64 * 1024;

/// Events, and their lines by merge key.
///
/// A line's merge key is its timestamp, or its stream's previous key where that is larger (rule 16): so a stream's own order always holds. Memory: 24 bytes a
/// line beside the batches themselves.
#[derive(Default)]
pub(crate) struct Gather {
    events: Vec<Event>,
    entries: Vec<Entry>,
    keys: HashMap<StreamId, Timestamp>,
    /// Gaps in front of the first line of their stream: they have no key until that comes.
    unplaced: HashMap<StreamId, Vec<Event>>,
    lines: u64,
    bytes: usize,
}

/// One line of an event, or the notice that it is.
#[derive(Clone, Copy)]
struct Entry {
    key: Timestamp,
    event: u32,
    line: u32,
    start: u32,
    end: u32,
}

impl Gather {
    /// Adds an event. Events of one stream are added in their order.
    pub(crate) fn push(&mut self, event: Event) {
        let last = self.keys.get(&event.origin.stream).copied();
        match &event.what {
            What::Lines { data, lines, late, .. } => {
                let taken = bus_time(&event);
                let mut key = last.unwrap_or_default();
                if last.is_none() && !late {
                    let time = Timestamp::split_line(data).map_or(taken, |(time, _)| time);
                    self.place_gaps(&event.origin.stream, time.max(key));
                }
                let index = self.next_event();
                let mut start = 0;
                for (line, end) in (0u32..).zip(memchr::memchr_iter(b'\n', data).map(|at| at + 1)) {
                    let time = Timestamp::split_line(&data[start..end]).map_or(taken.max(key), |(time, _)| time);
                    // A late line is passed on with its own time: its place in the stream is gone.
                    key = if *late { time } else { time.max(key) };
                    self.entries.push(Entry {
                        key,
                        event: index,
                        line,
                        start: narrow(start),
                        end: narrow(end),
                    });
                    start = end;
                }
                if !late {
                    self.remember(&event, key);
                }
                self.lines += lines;
                self.bytes += data.len();
            }
            What::Gap { .. } => match last {
                Some(key) => return self.push_gap(event, key),
                None => {
                    let stream = event.origin.stream.clone();
                    return self.unplaced.entry(stream).or_default().push(event);
                }
            },
            What::End => return,
        }
        self.events.push(event);
    }

    /// The index of the event that is pushed next.
    fn next_event(&self) -> u32 {
        u32::try_from(self.events.len()).unwrap_or(u32::MAX)
    }

    fn push_gap(&mut self, event: Event, key: Timestamp) {
        self.entries.push(Entry {
            key,
            event: self.next_event(),
            line: 0,
            start: 0,
            end: 0,
        });
        self.events.push(event);
    }

    /// The first line of a stream comes with this key: so do the gaps in front of it.
    fn place_gaps(&mut self, stream: &StreamId, key: Timestamp) {
        for gap in self.unplaced.remove(stream).into_iter().flatten() {
            self.push_gap(gap, key);
        }
    }

    /// Gaps that no line follows stand at the time at which the bus was told.
    fn place_remaining_gaps(&mut self) {
        for gap in std::mem::take(&mut self.unplaced).into_values().flatten() {
            let told = bus_time(&gap);
            self.push_gap(gap, told);
        }
    }

    fn remember(&mut self, event: &Event, key: Timestamp) {
        match self.keys.get_mut(&event.origin.stream) {
            Some(last) => *last = key,
            None => drop(self.keys.insert(event.origin.stream.clone(), key)),
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

    /// Whether nothing is gathered.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.unplaced.is_empty()
    }

    /// Forgets all but the newest `lines` lines of the app, and the notices among them.
    pub(crate) fn keep_last(&mut self, lines: u64) {
        if self.lines <= lines {
            return;
        }
        self.sort();
        let mut surplus = self.lines - lines;
        let events = &self.events;
        let is_line = |entry: &Entry| matches!(events[entry.event as usize].what, What::Lines { .. });
        let first = self.entries.iter().position(|entry| {
            let kept = surplus == 0;
            surplus -= u64::from(!kept && is_line(entry));
            kept
        });
        self.entries.drain(..first.unwrap_or(self.entries.len()));
        self.lines = lines;
        self.drop_unused_events();
    }

    /// Batches of which no line is left need not be held in memory.
    fn drop_unused_events(&mut self) {
        let mut places: Vec<Option<u32>> = vec![None; self.events.len()];
        self.entries
            .iter()
            .for_each(|entry| places[entry.event as usize] = Some(0));
        for (next, place) in (0..).zip(places.iter_mut().flatten()) {
            *place = next;
        }
        let mut used = places.iter().map(Option::is_some);
        self.events.retain(|_| used.next().unwrap_or_default());
        self.bytes = self.events.iter().map(Event::data_len).sum();
        for entry in &mut self.entries {
            entry.event = places[entry.event as usize].unwrap_or_default();
        }
    }

    fn sort(&mut self) {
        // Stable: what was added in a stream's order keeps it among equal keys.
        if !self.entries.is_sorted_by_key(|entry| entry.key) {
            self.entries.sort_by_key(|entry| entry.key);
        }
    }

    /// Renders all that is gathered, oldest first, and is empty again.
    pub(crate) fn render(&mut self) -> Vec<Frame> {
        let keys = std::mem::take(&mut self.keys);
        let frames = std::mem::take(self).into_frames().collect();
        self.keys = keys;
        frames
    }

    /// All that is gathered, oldest first, rendered as it is taken.
    pub(crate) fn into_frames(mut self) -> Frames {
        self.place_remaining_gaps();
        self.sort();
        Frames {
            events: self.events,
            entries: self.entries.into_iter(),
        }
    }

    /// Forgets the merge keys of streams whose last line is older than this.
    pub(crate) fn forget(&mut self, before: Timestamp) {
        self.keys.retain(|_, key| *key >= before);
    }
}

/// What was gathered, a frame at a time.
#[derive(Default)]
pub(crate) struct Frames {
    events: Vec<Event>,
    entries: std::vec::IntoIter<Entry>,
}

impl Iterator for Frames {
    type Item = Frame;

    fn next(&mut self) -> Option<Frame> {
        let mut frame = Unfinished::default();
        for entry in self.entries.by_ref() {
            frame.add(&self.events[entry.event as usize], &entry);
            if frame.text.len() >= FRAME_BYTES {
                break;
            }
        }
        (!frame.text.is_empty()).then(|| frame.finish())
    }
}

/// When the bus took the batch that an event came from, as a line's time.
fn bus_time(event: &Event) -> Timestamp {
    Timestamp(i64::try_from(event.published.0.saturating_mul(1000)).unwrap_or(i64::MAX))
}

/// A batch is at most 10 MB.
fn narrow(offset: usize) -> u32 {
    u32::try_from(offset).unwrap_or(u32::MAX)
}

#[derive(Default)]
struct Unfinished {
    text: BytesMut,
    runs: Vec<Run>,
}

impl Unfinished {
    fn add(&mut self, event: &Event, entry: &Entry) {
        let start = self.text.len();
        let seq = event.seq + u64::from(entry.line);
        let (seqs, notice) = match &event.what {
            What::Lines { data, .. } => {
                let line = &data[entry.start as usize..entry.end as usize];
                text::write_line(&mut self.text, &event.origin, line, entry.key);
                (seq..seq + 1, false)
            }
            What::Gap { lines, loss } => {
                let said = notice::gap(&event.origin.process, seq, *lines, loss.as_ref());
                text::write_notice(&mut self.text, event.origin.app.as_str(), entry.key, &said);
                (seq..seq + lines, true)
            }
            What::End => return,
        };
        let end = self.text.len();
        match self.runs.last_mut() {
            Some(run)
                if !notice
                    && !run.notice
                    && run.seqs.end == seqs.start
                    && run.stream.as_ref() == Some(&event.origin.stream) =>
            {
                run.seqs.end = seqs.end;
                run.bytes.end = end;
            }
            _ => {
                let stream = Some(event.origin.stream.clone());
                self.runs.push(Run {
                    stream,
                    seqs,
                    notice,
                    bytes: start..end,
                });
            }
        }
    }

    fn finish(self) -> Frame {
        Frame {
            text: self.text.freeze(),
            runs: self.runs,
        }
    }
}

/// A frame of one notice about no stream.
pub(crate) fn notice_frame(app: &str, said: &str) -> Frame {
    let mut text = BytesMut::new();
    text::write_notice(&mut text, app, Timestamp::now(), said);
    let run = Run {
        stream: None,
        seqs: 0..0,
        notice: true,
        bytes: 0..text.len(),
    };
    Frame {
        text: text.freeze(),
        runs: vec![run],
    }
}
