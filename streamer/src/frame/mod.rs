//! Lines of an app in output order, grouped into frames that cache their rendering in each format.
//!
//! Depends on lines and formats only.

pub(crate) mod gzip;
pub(crate) mod memory;
pub(crate) mod rendered;

use std::sync::OnceLock;

use bus::{
    AppName, PublishTime, Timestamp,
    cursor::StreamKey,
    reassembly::{Event, EventKind},
};
use bytes::BytesMut;
use system::{
    clock::{self, Instant},
    collections::HashMap,
};

use crate::{
    format::Format,
    frame::{memory::Charge, rendered::Rendered},
    line::{Lines, NoticeLine, Run},
};

/// Bytes of lines after which a frame is full. A frame is the unit that a slow tail waits for and
/// that one write sends; a single long line may exceed it.
const FRAME_BYTES: usize = 64 * 1024;

/// Lines of one app in output order, rendered once per format when a tail first reads them.
pub(crate) struct Frame {
    app: AppName,
    chunks: Vec<Chunk>,
    spans: Vec<Span>,
    lines: u64,
    /// Latest publish time among the frame's batches.
    newest: Option<PublishTime>,
    has_gaps: bool,
    created: Instant,
    rendered: [OnceLock<Rendered>; Format::COUNT],
    pub(crate) charge: Charge,
}

/// The content that entries refer to: the lines of a reassembled batch, or a notice.
#[derive(Clone, Debug)]
pub(crate) enum Chunk {
    /// Lines of a stream.
    Lines {
        key: StreamKey,
        /// A `Lines` event.
        event: Event,
    },
    Notice(Box<NoticeLine>),
}

/// Consecutive lines of one chunk.
#[derive(Clone, Copy, Debug)]
struct Span {
    chunk: u32,
    /// Index of the first line within the chunk.
    line: u32,
    /// Number of lines; 0 for a notice.
    lines: u32,
    start: u32,
    end: u32,
}

impl Drop for Frame {
    /// Releases the memory of frames that no ring released: frames of history count until their
    /// last reader drops them.
    fn drop(&mut self) {
        self.charge.release();
    }
}

impl Frame {
    /// Creates a frame of one notice.
    pub(crate) fn notice(app: &AppName, notice: NoticeLine) -> Self {
        let mut builder = Builder::new(app.clone());
        builder.chunks.push(Chunk::Notice(Box::new(notice)));
        builder.spans.push(Span {
            chunk: 0,
            line: 0,
            lines: 0,
            start: 0,
            end: 0,
        });
        builder.finish()
    }

    pub(crate) fn app(&self) -> &AppName {
        &self.app
    }

    /// Returns the number of the app's lines; notices do not count.
    pub(crate) fn lines(&self) -> u64 {
        self.lines
    }

    pub(crate) fn created(&self) -> Instant {
        self.created
    }

    /// Returns the latest publish time in the frame. `None` if nothing in it comes from the bus.
    pub(crate) fn newest(&self) -> Option<PublishTime> {
        self.newest
    }

    /// Returns whether there are gap notices or late lines.
    pub(crate) fn has_gaps(&self) -> bool {
        self.has_gaps
    }

    /// Iterates over the runs in output order.
    pub(crate) fn runs(&self) -> impl Iterator<Item = Run<'_>> {
        self.spans.iter().map(|span| match &self.chunks[span.chunk as usize] {
            Chunk::Notice(notice) => Run::Notice(notice),
            Chunk::Lines { key, event } => {
                Run::Lines(Lines::of(*key, event, span.line, span.lines, span.start..span.end))
            }
        })
    }

    /// Iterates over the streams of its batches; one can occur several times.
    pub(crate) fn streams(&self) -> impl Iterator<Item = StreamKey> + '_ {
        self.chunks.iter().filter_map(|chunk| match chunk {
            Chunk::Lines { key, .. } => Some(*key),
            Chunk::Notice(_) => None,
        })
    }

    /// Iterates over the notices that lines of a stream may be repeated.
    pub(crate) fn repeat_notices(&self) -> impl Iterator<Item = &NoticeLine> {
        self.chunks.iter().filter_map(|chunk| match chunk {
            Chunk::Notice(notice) if notice.announces_repeats() => Some(&**notice),
            Chunk::Notice(_) | Chunk::Lines { .. } => None,
        })
    }

    /// Returns the whole frame rendered in a format.
    pub(crate) fn rendered(&self, format: Format) -> &Rendered {
        self.rendered[format as usize].get_or_init(|| {
            let mut out = BytesMut::with_capacity(self.charge.bytes());
            for run in self.runs() {
                match run {
                    Run::Lines(lines) => lines.iter().for_each(|line| format.write_line(&mut out, &line)),
                    Run::Notice(notice) => format.write_notice(&mut out, &self.app, notice),
                }
            }
            self.charge.add(out.len());
            Rendered::from(out.freeze())
        })
    }
}

/// A line or notice to be sorted, and its merge key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) key: Timestamp,
    /// Index of the chunk in the collection that is sorted.
    pub(crate) chunk: u32,
    /// Index of the line within the chunk.
    pub(crate) line: u32,
    pub(crate) start: u32,
    pub(crate) end: u32,
}

impl Entry {
    /// Creates the entry of a notice.
    pub(crate) fn notice(key: Timestamp, chunk: u32) -> Self {
        Self {
            key,
            chunk,
            line: 0,
            start: 0,
            end: 0,
        }
    }
}

/// Builds a frame from entries in output order.
pub(crate) struct Builder {
    app: AppName,
    chunks: Vec<Chunk>,
    spans: Vec<Span>,
    lines: u64,
    bytes: usize,
    /// Index in the sorted collection to index in this frame.
    indexes: HashMap<u32, u32>,
    last: Option<u32>,
}

impl Builder {
    pub(crate) fn new(app: AppName) -> Self {
        Self {
            app,
            chunks: Vec::new(),
            spans: Vec::new(),
            lines: 0,
            bytes: 0,
            indexes: HashMap::default(),
            last: None,
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.bytes >= FRAME_BYTES
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// Appends an entry of this chunk.
    pub(crate) fn add(&mut self, entry: &Entry, chunk: &Chunk) {
        let is_line = matches!(chunk, Chunk::Lines { .. });
        self.lines += u64::from(is_line);
        self.bytes += (entry.end - entry.start) as usize;
        if let Some(span) = self.spans.last_mut()
            && is_line
            && self.last == Some(entry.chunk)
            && span.line + span.lines == entry.line
        {
            span.lines += 1;
            span.end = entry.end;
            return;
        }
        let chunks = &mut self.chunks;
        let index = *self.indexes.entry(entry.chunk).or_insert_with(|| {
            chunks.push(chunk.clone());
            to_u32(chunks.len() - 1)
        });
        self.last = Some(entry.chunk);
        self.spans.push(Span {
            chunk: index,
            line: entry.line,
            lines: u32::from(is_line),
            start: entry.start,
            end: entry.end,
        });
    }

    /// Forgets an index of the sorted collection, so that the index can be reused.
    pub(crate) fn forget_index(&mut self, chunk: u32) {
        self.indexes.remove(&chunk);
        self.last = self.last.filter(|last| *last != chunk);
    }

    pub(crate) fn finish(self) -> Frame {
        let bytes = self.bytes + self.spans.len() * size_of::<Span>() + self.chunks.len() * size_of::<Chunk>();
        let published = |chunk: &Chunk| match chunk {
            Chunk::Lines { event, .. } => Some(event.published),
            Chunk::Notice(notice) => notice.gap.as_ref().map(|gap| gap.published),
        };
        let is_gap = |chunk: &Chunk| match chunk {
            Chunk::Lines { event, .. } => matches!(event.kind, EventKind::Lines { late: true, .. }),
            Chunk::Notice(notice) => notice.gap.is_some(),
        };
        Frame {
            newest: self.chunks.iter().filter_map(published).max(),
            has_gaps: self.chunks.iter().any(is_gap),
            app: self.app,
            chunks: self.chunks,
            spans: self.spans,
            lines: self.lines,
            created: clock::steady(),
            rendered: Default::default(),
            charge: Charge::new(bytes),
        }
    }
}

/// Narrows an index or offset. Batches are at most 10 MB, so it always fits.
pub(crate) fn to_u32(offset: usize) -> u32 {
    u32::try_from(offset).unwrap_or(u32::MAX)
}
