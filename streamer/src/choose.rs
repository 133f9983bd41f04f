//! Which of a frame's lines one reader is shown.

use std::{collections::HashSet, ops::Range, sync::Arc};

use bus::cursor::StreamKey;
use bytes::BytesMut;
use tokio::time::Instant;

use crate::{
    filter::Filter,
    format::Format,
    frame::{Frame, Lines, Shown, Told},
    history::Shared,
    piece::Piece,
    ring::Ring,
    settled::{Settled, missing_told},
};

/// A reader's choice. Where everything is wanted, it costs nothing: the frame's own rendering is shared.
pub(crate) struct Choose {
    filter: Option<Arc<Filter>>,
    /// What a read-back showed.
    splice: Option<Arc<Shared>>,
    /// The streams whose live lines have joined it.
    met: HashSet<StreamKey>,
    /// What was dealt with before a reader came back with a cursor, and since.
    resumed: Option<Settled>,
    /// Live frames made from then on hold neither.
    until: Instant,
    /// So many lines are left out first.
    skip: u64,
    /// The reader was told that it missed some, of any stream: no hole is told again.
    overflowed: bool,
}

impl Choose {
    pub(crate) fn new(filter: Option<Arc<Filter>>, resumed: Option<Settled>) -> Self {
        Self {
            filter,
            splice: None,
            met: HashSet::new(),
            resumed,
            until: Instant::now(),
            skip: 0,
            overflowed: false,
        }
    }

    /// What this read-back has is shown once, until live frames are made after `until`.
    pub(crate) fn splice(&mut self, shared: Arc<Shared>, until: Instant) {
        self.splice = Some(shared);
        self.until = until;
    }

    /// The reader was told that it missed lines.
    pub(crate) fn overflowed(&mut self) {
        self.overflowed = true;
    }

    /// Whether a ring has brought all that this reader had from elsewhere.
    pub(crate) fn is_joined(&self, ring: &Ring) -> bool {
        let read_back = self.splice.as_ref().map(|shared| &shared.past.settled);
        (read_back.is_none() && self.resumed.is_none()) || ring.has(read_back, self.resumed.as_ref())
    }

    /// What was dealt with before the reader came back is shown once, until live frames are made after `until`.
    pub(crate) fn resume(&mut self, until: Instant) {
        self.until = until;
    }

    /// Leaves out so many lines more.
    pub(crate) fn skip(&mut self, lines: u64) {
        self.skip += lines;
    }

    /// Whether lines are looked at, one by one.
    pub(crate) fn looks_at_lines(&self) -> bool {
        self.filter.is_some()
    }

    /// How many of a frame's lines are wanted; `live`: it may hold what a read-back had. Not for a reader that resumes.
    pub(crate) fn count(&self, frame: &Frame, live: bool) -> u64 {
        let splice = self.spliced(frame, live);
        if splice.is_none() && self.filter.is_none() {
            return frame.lines();
        }
        let runs = frame.runs().map(|run| match run {
            Shown::Lines(lines) => {
                let rest = splice.map(|settled| settled.rest_of(&lines));
                self.lines(lines, rest.as_deref()).count() as u64
            }
            Shown::Told(_) => 0,
        });
        runs.sum()
    }

    /// A frame as this reader is shown it. `None` where nothing of it is.
    pub(crate) fn render(&mut self, frame: &Frame, live: bool, format: Format) -> Option<Piece> {
        if live && frame.made() >= self.until {
            // By now all has been shown that could come twice.
            self.splice = None;
            self.met = HashSet::new();
            self.resumed = None;
        }
        let everything = self.filter.is_none() && self.resumed.is_none() && self.spliced(frame, live).is_none();
        if everything && self.skip == 0 {
            return Some(frame.piece(format).clone());
        }
        if everything && self.skip >= frame.lines() && frame.lines() > 0 {
            self.skip -= frame.lines();
            return None;
        }
        let mut out = BytesMut::new();
        for run in frame.runs() {
            match run {
                Shown::Lines(lines) => self.render_lines(&mut out, frame, lines, live, format),
                Shown::Told(told) => self.render_told(&mut out, frame, told, live, format),
            }
        }
        (!out.is_empty()).then(|| Piece::from(out.freeze()))
    }

    fn render_lines(&mut self, out: &mut BytesMut, frame: &Frame, lines: Lines, live: bool, format: Format) {
        let rest = match &mut self.resumed {
            Some(resumed) => {
                let (gap, rest) = resumed.go_on(&lines);
                let gap = gap.filter(|_| !self.overflowed);
                if let Some(gap) = gap.filter(|gap| self.filter.as_ref().is_none_or(|filter| filter.takes_told(gap))) {
                    format.write_notice(out, frame.app(), &gap);
                }
                Some(rest)
            }
            None => {
                self.tell_missing(out, frame, &lines, live, format);
                self.spliced(frame, live).map(|settled| settled.rest_of(&lines))
            }
        };
        let mut skip = self.skip;
        for line in self.lines(lines, rest.as_deref()) {
            if skip > 0 {
                skip -= 1;
            } else {
                format.write_line(out, &line);
            }
        }
        self.skip = skip;
    }

    /// A stream's first live lines: what is missing between them and the read-back, nobody else has told. Its reader joined the stream behind it.
    fn tell_missing(&mut self, out: &mut BytesMut, frame: &Frame, lines: &Lines, live: bool, format: Format) {
        let Some(settled) = self.spliced(frame, live) else {
            return;
        };
        if self.overflowed || lines.late || self.met.contains(&lines.key) {
            return;
        }
        let missing = settled.missing_before(lines.key, lines.seq);
        self.met.insert(lines.key);
        let told = missing.map(|missing| missing_told(lines, missing));
        if let Some(told) = told.filter(|told| self.filter.as_ref().is_none_or(|filter| filter.takes_told(told))) {
            format.write_notice(out, frame.app(), &told);
        }
    }

    fn render_told(&mut self, out: &mut BytesMut, frame: &Frame, told: &Told, live: bool, format: Format) {
        let wanted = self.skip == 0 && self.filter.as_ref().is_none_or(|filter| filter.takes_told(told));
        let news = match (&mut self.resumed, &told.gap) {
            (Some(resumed), Some(gap)) => resumed.go_on_behind(gap),
            (None, Some(gap)) => {
                self.met.insert(gap.key);
                self.spliced(frame, live).is_none_or(|settled| !settled.is_told(gap))
            }
            (_, None) => true,
        };
        if wanted && news {
            format.write_notice(out, frame.app(), told);
        }
    }

    /// The lines that the filter takes, of those that are still to be shown.
    fn lines<'a>(
        &'a self,
        lines: Lines<'a>,
        rest: Option<&'a [Range<u64>]>,
    ) -> impl Iterator<Item = crate::frame::Line<'a>> {
        let filter = self.filter.as_deref();
        let takes_stream = filter.is_none_or(|filter| filter.takes_stream(lines.metadata));
        let nothing = !takes_stream || rest.is_some_and(<[_]>::is_empty);
        let lines = (!nothing).then(|| lines.iter()).into_iter().flatten();
        lines
            .filter(move |line| rest.is_none_or(|rest| rest.iter().any(|seqs| seqs.contains(&line.seq))))
            .filter(move |line| filter.is_none_or(|filter| filter.takes(line)))
    }

    fn spliced(&self, frame: &Frame, live: bool) -> Option<&Settled> {
        let shared = self.splice.as_ref()?;
        (live && frame.made() < self.until).then_some(&shared.past.settled)
    }
}
