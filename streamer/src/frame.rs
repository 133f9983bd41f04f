//! Lines in the order in which they are shown, and each format's rendering of them once somebody reads it.

use std::{
    collections::HashMap,
    ops::Range,
    sync::{Arc, OnceLock},
};

use bus::{
    AppName, Part, PublishTime, StreamMetadata, Timestamp,
    cursor::StreamKey,
    notice::{self, Notice},
    reassembly::{Event, EventKind},
};
use bytes::BytesMut;
use tokio::time::Instant;

use crate::{charge::Charge, format::Format, piece::Piece};

/// Bytes of lines after which a frame is full. Frames are what a slow tail waits for and what the kernel is handed; a single line may make one larger.
const FRAME_BYTES: usize = 64 * 1024;

/// Lines of an app, in the order they are shown. Rendered once a format, by the first who reads it.
pub(crate) struct Frame {
    app: AppName,
    sources: Vec<Source>,
    runs: Vec<Run>,
    lines: u64,
    /// When the bus took the newest of it.
    newest: Option<PublishTime>,
    made: Instant,
    rendered: [OnceLock<Piece>; Format::COUNT],
    pub(crate) charge: Charge,
}

/// What lines come from: a settled batch, or the platform itself.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// Lines of a stream.
    Lines {
        /// The stream.
        key: StreamKey,
        /// An event whose `what` is lines.
        event: Event,
    },
    /// A notice.
    Told(Told),
}

/// A and what it settles.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    /// The time it is shown under.
    pub(crate) time: Timestamp,
    /// What is said.
    pub(crate) notice: Notice,
    /// The seqs that it says are missing. `None` where it is about no stream.
    pub(crate) gap: Option<GapRange>,
}

/// Seqs that will not come. None, where their count is unknown: then it stands before `seqs.start`.
#[derive(Clone, Debug)]
pub(crate) struct GapRange {
    pub(crate) key: StreamKey,
    pub(crate) metadata: Arc<StreamMetadata>,
    pub(crate) seqs: Range<u64>,
    /// Nobody lost them for certain: they may come yet.
    pub(crate) open: bool,
    pub(crate) published: PublishTime,
}

/// Consecutive lines of one source.
#[derive(Clone, Copy, Debug)]
struct Run {
    source: u32,
    /// The first, counted from the source's.
    line: u32,
    /// 0: a notice.
    lines: u32,
    start: u32,
    end: u32,
}

/// A run, as it is read.
pub(crate) enum Shown<'a> {
    Lines(Lines<'a>),
    Told(&'a Told),
}

/// Consecutive lines of one stream.
#[derive(Clone, Copy)]
pub(crate) struct Lines<'a> {
    pub(crate) key: StreamKey,
    pub(crate) metadata: &'a Arc<StreamMetadata>,
    /// Of the first.
    pub(crate) seq: u64,
    pub(crate) count: u64,
    pub(crate) published: PublishTime,
    pub(crate) part: Option<Part>,
    pub(crate) late: bool,
    data: &'a [u8],
}

/// One line.
#[derive(Clone, Copy)]
pub(crate) struct Line<'a> {
    pub(crate) metadata: &'a StreamMetadata,
    pub(crate) seq: u64,
    pub(crate) part: Option<Part>,
    pub(crate) late: bool,
    /// When the bus took it: the time of a line that carries none.
    pub(crate) published: PublishTime,
    /// As the log API printed it, newline and all.
    pub(crate) raw: &'a [u8],
}

impl Drop for Frame {
    /// What a ring kept was let go there; history counts until the last of its readers has it.
    fn drop(&mut self) {
        self.charge.let_go();
    }
}

impl Frame {
    /// A frame of one notice.
    pub(crate) fn told(app: &AppName, told: Told) -> Self {
        let mut builder = Builder::new(app.clone());
        builder.sources.push(Source::Told(told));
        builder.runs.push(Run {
            source: 0,
            line: 0,
            lines: 0,
            start: 0,
            end: 0,
        });
        builder.finish()
    }

    /// Whose.
    pub(crate) fn app(&self) -> &AppName {
        &self.app
    }

    /// Lines of the app.
    pub(crate) fn lines(&self) -> u64 {
        self.lines
    }

    /// When it was put together.
    pub(crate) fn made(&self) -> Instant {
        self.made
    }

    /// When the bus took the newest of it. `None` for what never was on the bus.
    pub(crate) fn newest(&self) -> Option<PublishTime> {
        self.newest
    }

    /// The runs, in order.
    pub(crate) fn runs(&self) -> impl Iterator<Item = Shown<'_>> {
        self.runs.iter().map(|run| match &self.sources[run.source as usize] {
            Source::Told(told) => Shown::Told(told),
            Source::Lines { key, event } => Shown::Lines(Lines::of(*key, event, run)),
        })
    }

    /// All of it, in a format.
    pub(crate) fn piece(&self, format: Format) -> &Piece {
        self.rendered[format as usize].get_or_init(|| {
            let mut out = BytesMut::with_capacity(self.charge.own());
            for run in self.runs() {
                match run {
                    Shown::Lines(lines) => lines.iter().for_each(|line| format.write_line(&mut out, &line)),
                    Shown::Told(told) => format.write_notice(&mut out, &self.app, told),
                }
            }
            self.charge.add(out.len());
            Piece::from(out.freeze())
        })
    }
}

impl<'a> Lines<'a> {
    fn of(key: StreamKey, event: &'a Event, run: &Run) -> Self {
        let (data, part, late) = match &event.kind {
            EventKind::Lines { data, part, late, .. } => (&data[run.start as usize..run.end as usize], *part, *late),
            EventKind::Gap { .. } | EventKind::End => (&[][..], None, false),
        };
        Self {
            key,
            metadata: &event.metadata,
            seq: event.seq + u64::from(run.line),
            count: u64::from(run.lines),
            published: event.published,
            part,
            late,
            data,
        }
    }

    pub(crate) fn seqs(&self) -> Range<u64> {
        self.seq..self.seq + self.count
    }

    /// One by one.
    pub(crate) fn iter(self) -> impl Iterator<Item = Line<'a>> {
        let mut start = 0;
        let ends = memchr::memchr_iter(b'\n', self.data).map(|at| at + 1);
        ends.zip(self.seq..).map(move |(end, seq)| Line {
            metadata: self.metadata,
            seq,
            part: self.part,
            late: self.late,
            published: self.published,
            raw: &self.data[std::mem::replace(&mut start, end)..end],
        })
    }
}

impl<'a> Line<'a> {
    /// Its time, and what it says without its newline.
    pub(crate) fn split(&self) -> (Timestamp, &'a [u8]) {
        let line = self.raw.strip_suffix(b"\n").unwrap_or(self.raw);
        Timestamp::split_line(line).unwrap_or((Timestamp::from(self.published), line))
    }
}

impl Told {
    /// About no stream, now.
    pub(crate) fn now(notice: Notice) -> Self {
        Self {
            time: Timestamp::now(),
            notice,
            gap: None,
        }
    }

    /// A gap of a stream.
    pub(crate) fn gap(key: StreamKey, event: &Event, time: Timestamp) -> Self {
        let (lines, loss) = match &event.kind {
            EventKind::Gap { lines, gap: loss } => (*lines, loss.as_ref()),
            EventKind::Lines { .. } | EventKind::End => (0, None),
        };
        Self {
            time,
            notice: notice::gap(&event.metadata, event.seq, lines, loss),
            gap: Some(GapRange {
                key,
                metadata: Arc::clone(&event.metadata),
                seqs: event.seq..event.seq + lines,
                open: loss.is_none(),
                published: event.published,
            }),
        }
    }
}

/// A line or a notice of something that is gathered, and its place among the others.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) key: Timestamp,
    /// Which of what is gathered.
    pub(crate) source: u32,
    pub(crate) line: u32,
    pub(crate) start: u32,
    pub(crate) end: u32,
}

impl Entry {
    /// A notice's.
    pub(crate) fn told(key: Timestamp, source: u32) -> Self {
        Self {
            key,
            source,
            line: 0,
            start: 0,
            end: 0,
        }
    }
}

/// Puts a frame together from entries.
pub(crate) struct Builder {
    app: AppName,
    sources: Vec<Source>,
    runs: Vec<Run>,
    lines: u64,
    bytes: usize,
    /// What is gathered, to where it lies in this frame.
    places: HashMap<u32, u32>,
    last: Option<u32>,
}

impl Builder {
    pub(crate) fn new(app: AppName) -> Self {
        Self {
            app,
            sources: Vec::new(),
            runs: Vec::new(),
            lines: 0,
            bytes: 0,
            places: HashMap::new(),
            last: None,
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.bytes >= FRAME_BYTES
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Adds an entry of this source.
    pub(crate) fn add(&mut self, entry: &Entry, source: &Source) {
        let is_line = matches!(source, Source::Lines { .. });
        self.lines += u64::from(is_line);
        self.bytes += (entry.end - entry.start) as usize;
        if let Some(run) = self.runs.last_mut()
            && is_line
            && self.last == Some(entry.source)
            && run.line + run.lines == entry.line
        {
            run.lines += 1;
            run.end = entry.end;
            return;
        }
        let sources = &mut self.sources;
        let place = *self.places.entry(entry.source).or_insert_with(|| {
            sources.push(source.clone());
            narrow(sources.len() - 1)
        });
        self.last = Some(entry.source);
        self.runs.push(Run {
            source: place,
            line: entry.line,
            lines: u32::from(is_line),
            start: entry.start,
            end: entry.end,
        });
    }

    /// This number names something else from here on.
    pub(crate) fn close(&mut self, source: u32) {
        self.places.remove(&source);
        self.last = self.last.filter(|last| *last != source);
    }

    pub(crate) fn finish(self) -> Frame {
        let bytes = self.bytes + self.runs.len() * size_of::<Run>() + self.sources.len() * size_of::<Source>();
        let published = |source: &Source| match source {
            Source::Lines { event, .. } => Some(event.published),
            Source::Told(told) => told.gap.as_ref().map(|gap| gap.published),
        };
        Frame {
            newest: self.sources.iter().filter_map(published).max(),
            app: self.app,
            sources: self.sources,
            runs: self.runs,
            lines: self.lines,
            made: Instant::now(),
            rendered: Default::default(),
            charge: Charge::new(bytes),
        }
    }
}

/// The lines of an event; empty where it has none.
pub(crate) fn data(event: &Event) -> &[u8] {
    match &event.kind {
        EventKind::Lines { data, .. } => data,
        EventKind::Gap { .. } | EventKind::End => &[],
    }
}

/// A batch is at most 10 MB.
pub(crate) fn narrow(offset: usize) -> u32 {
    u32::try_from(offset).unwrap_or(u32::MAX)
}
