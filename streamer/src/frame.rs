//! Rendered lines, and what they settle.

use std::{collections::HashMap, ops::Range};

use bus::{
    StreamId,
    reassembly::{Event, Ranges, What},
};
use bytes::Bytes;

/// Lines rendered once for all readers, in the order they are shown. Always whole lines.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    /// The text, as a text tail prints it.
    pub(crate) text: Bytes,
    /// Whose lines they are, in order.
    pub(crate) runs: Vec<Run>,
}

/// Consecutive lines of one stream, or one notice about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// Whose; `None` for a notice about no stream.
    pub(crate) stream: Option<StreamId>,
    /// The seqs it shows, or says are missing. Empty where their count is unknown.
    pub(crate) seqs: Range<u64>,
    /// A notice is no line of the app: it does not count.
    pub(crate) notice: bool,
    /// Its bytes in the text.
    pub(crate) bytes: Range<usize>,
}

impl Run {
    /// Lines of the app.
    pub(crate) fn lines(&self) -> u64 {
        if self.notice {
            0
        } else {
            self.seqs.end - self.seqs.start
        }
    }
}

impl Frame {
    /// Lines of the app.
    pub(crate) fn lines(&self) -> u64 {
        self.runs.iter().map(Run::lines).sum()
    }

    /// The text from the line on that has `lines` lines of the app from there to the frame's end.
    pub(crate) fn last_lines(&self, lines: u64) -> Bytes {
        let mut skip = self.lines().saturating_sub(lines);
        for run in &self.runs {
            if skip < run.lines() || (skip == 0 && run.notice) {
                let within = line_offset(&self.text[run.bytes.clone()], skip);
                return self.text.slice(run.bytes.start + within..);
            }
            skip -= run.lines();
        }
        Bytes::new()
    }

    /// What of the text is not settled yet, in pieces. One piece, and no copy, where nothing is.
    pub(crate) fn unsettled(&self, settled: &Settled) -> Vec<Bytes> {
        let mut pieces: Vec<Range<usize>> = Vec::new();
        for run in &self.runs {
            for part in settled.rest_of(run, &self.text) {
                match pieces.last_mut() {
                    Some(last) if last.end == part.start => last.end = part.end,
                    _ => pieces.push(part),
                }
            }
        }
        pieces.into_iter().map(|piece| self.text.slice(piece)).collect()
    }
}

/// What a reader has been shown already, by another way.
#[derive(Debug, Default)]
pub(crate) struct Settled {
    streams: HashMap<StreamId, Shown>,
}

#[derive(Debug, Default)]
struct Shown {
    lines: Ranges,
    /// Lines, and seqs that were told to be missing.
    told: Ranges,
    /// Losses of unknown count that were told.
    unknown: Vec<u64>,
}

impl Settled {
    /// Notes what an event showed.
    pub(crate) fn insert(&mut self, event: &Event) {
        let stream = &event.origin.stream;
        if !self.streams.contains_key(stream) {
            self.streams.insert(stream.clone(), Shown::default());
        }
        let Some(shown) = self.streams.get_mut(stream) else {
            return;
        };
        match &event.what {
            What::Lines { lines, .. } => {
                shown.lines.insert(event.seq..event.seq + lines);
                shown.told.insert(event.seq..event.seq + lines);
            }
            What::Gap { lines: 0, .. } => shown.unknown.push(event.seq),
            What::Gap { lines, .. } => shown.told.insert(event.seq..event.seq + lines),
            What::End => {}
        }
    }

    /// The bytes of a run that are still to be shown.
    fn rest_of(&self, run: &Run, text: &[u8]) -> Vec<Range<usize>> {
        let whole = vec![run.bytes.clone()];
        let shown = run.stream.as_ref().and_then(|stream| self.streams.get(stream));
        let Some(shown) = shown else { return whole };
        if run.notice {
            let told = if run.seqs.is_empty() {
                shown.unknown.contains(&run.seqs.start)
            } else {
                shown.told.covers(&run.seqs)
            };
            return if told { Vec::new() } else { whole };
        }
        // What was told to be missing and comes all the same is shown.
        let rest = shown.lines.missing_from(run.seqs.clone());
        if rest == [run.seqs.clone()] {
            return whole;
        }
        let text = &text[run.bytes.clone()];
        let offset = |seq: u64| run.bytes.start + line_offset(text, seq - run.seqs.start);
        rest.into_iter()
            .map(|seqs| offset(seqs.start)..offset(seqs.end))
            .collect()
    }
}

/// Where line `line` begins; the end where there are no more.
fn line_offset(text: &[u8], line: u64) -> usize {
    let Some(before) = line.checked_sub(1) else { return 0 };
    let nth = usize::try_from(before).unwrap_or(usize::MAX);
    memchr::memchr_iter(b'\n', text)
        .nth(nth)
        .map_or(text.len(), |at| at + 1)
}
