//! Finds where a response continues what was read before, one line at a time, without I/O.
//!
//! Lines are compared by content only. Neither the order of timestamps nor a clock decides anything:
//! the node's clock can step back or stand still.

use bus::Timestamp;

use crate::anchor::{Anchor, AnchorState, ResumePoint, fingerprint};

/// Which part of a log a response contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// The current file from its start, and nothing of it was read before.
    New,
    /// The end of the current file, at most this many lines of it, and what is written next.
    Tail(u64),
    /// The current file from its start.
    File,
    /// The same; the resume point is after this many lines.
    Counted(u64),
    /// The same; what it contains is skipped.
    Skipped,
    /// The same; only the position of a line is wanted.
    Located,
}

/// What to find in a response before its lines can be numbered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResumeSearch {
    extent: Extent,
    confirmed: Option<ResumePoint>,
    unconfirmed: Option<ResumePoint>,
    /// The number of lines checked.
    lines: u64,
    /// The hash of the first line, which identifies the file.
    file: Option<u64>,
    first: Option<Timestamp>,
    /// All lines have had the time of the first one. Lines before it may have had it too, so that
    /// ordinals are unknown.
    is_first_run: bool,
    /// A line of the first run that can be the confirmed one, and how many there are.
    candidate: Option<u64>,
    candidates: u64,
    /// Whether lines are kept for the case that only the unconfirmed line is found.
    holds: bool,
    /// The last line of a skipped response.
    last: Option<Anchor>,
    /// A line before the confirmed one, whose position makes that of the confirmed one irrelevant.
    earlier: Option<Anchor>,
}

/// The result of a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SearchResult {
    /// The confirmed line was found: numbering continues after it.
    Confirmed,
    /// Only the unconfirmed line was found. The lines up to it are held; those before them are
    /// lost.
    Unconfirmed {
        /// Lines held, up to and including the unconfirmed one.
        held: u64,
    },
    /// The position of a line in the file.
    Located {
        /// The hash of the file's first line.
        file: u64,
        /// The number of lines up to and including it. `None`: an earlier line was found.
        lines: Option<u64>,
    },
    /// Neither was found.
    NotFound(Unmatched),
}

/// A response without the resume point.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unmatched {
    /// The time of the first line, if there is one.
    pub first: Option<Timestamp>,
    /// The hash of the first line, which identifies the file; `None` if it is empty.
    pub file: Option<u64>,
    /// The number of lines up to and including the only one that can be the confirmed line, although
    /// its ordinal differs: the file was rotated among lines with equal time.
    pub candidate: Option<u64>,
    /// The last line of a skipped response.
    pub last: Option<Anchor>,
}

/// What to do with a line.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It precedes the resume point: drop it.
    Drop,
    /// Keep it until the search is decided.
    Hold,
    /// The search is decided at this line.
    Decided(SearchResult, Option<ResumePoint>),
}

impl ResumeSearch {
    /// Searches for `confirmed`, the end of the lines known to be on the bus, and otherwise for
    /// `unconfirmed`, the end of those that may be. Returns `None` if there is nothing to find and
    /// numbering starts with the first line.
    pub fn new(extent: Extent, confirmed: Option<ResumePoint>, unconfirmed: Option<ResumePoint>) -> Option<Self> {
        let from = confirmed.map_or(0, |confirmed| confirmed.seq_end);
        let unconfirmed = unconfirmed.filter(|unconfirmed| unconfirmed.seq_end > from && extent == Extent::File);
        let has_goal = match extent {
            Extent::New => false,
            Extent::Skipped | Extent::Located => true,
            Extent::Counted(lines) => lines > 0,
            Extent::Tail(_) => confirmed.is_some(),
            Extent::File => confirmed.is_some() || unconfirmed.is_some(),
        };
        has_goal.then_some(Self {
            extent,
            confirmed,
            unconfirmed,
            lines: 0,
            file: None,
            first: None,
            is_first_run: true,
            candidate: None,
            candidates: 0,
            holds: unconfirmed.is_some(),
            last: None,
            earlier: None,
        })
    }

    /// Looks for the position of `last` in a file, unless it contains `earlier` as well.
    pub fn locating(last: Option<ResumePoint>, earlier: Option<Anchor>) -> Option<Self> {
        let search = Self::new(Extent::Located, last, None)?;
        Some(Self { earlier, ..search })
    }

    /// Checks the line that was just added to `state`.
    pub fn check_line(&mut self, state: &AnchorState, line: &[u8]) -> Verdict {
        self.lines += 1;
        if self.lines == 1 {
            self.file = Some(fingerprint(line));
            self.first = (state.time != i64::MIN).then_some(Timestamp(state.time));
        }
        self.is_first_run &= state.ordinal == self.lines;
        match self.extent {
            Extent::New => Verdict::Hold,
            Extent::Skipped => {
                self.last = Some(state.anchor(line));
                Verdict::Drop
            }
            Extent::Counted(lines) => self.check_counted(lines, state, line),
            Extent::Located => self.check_located(state, line),
            Extent::Tail(lines) => {
                // The ordinals of the first run are counted from within it.
                if !self.is_first_run
                    && let Some(point) = self.match_confirmed(state, line)
                {
                    return Verdict::Decided(SearchResult::Confirmed, Some(point));
                }
                if self.lines >= lines {
                    return Verdict::Decided(self.not_found(), None);
                }
                Verdict::Drop
            }
            Extent::File => self.check_file(state, line),
        }
    }

    /// Returns the hash of the first line.
    pub fn file(&self) -> Option<u64> {
        self.file
    }

    /// Stops keeping lines: there are more than lie between the two resume points.
    pub fn stop_holding(&mut self) {
        (self.holds, self.unconfirmed) = (false, None);
    }

    /// Returns the result of a search without a match.
    pub fn not_found(&self) -> SearchResult {
        SearchResult::NotFound(Unmatched {
            first: self.first,
            file: self.file,
            candidate: self.candidate.filter(|_| self.candidates == 1),
            last: self.last,
        })
    }

    /// The last counted line must be the confirmed one. Its ordinal was counted from another start.
    fn check_counted(&mut self, lines: u64, state: &AnchorState, line: &[u8]) -> Verdict {
        if self.lines < lines {
            return Verdict::Drop;
        }
        let proof = self
            .confirmed
            .filter(|confirmed| state.matches_line(&confirmed.anchor, line));
        match proof {
            Some(_) => Verdict::Decided(SearchResult::Confirmed, proof),
            None => Verdict::Decided(self.not_found(), None),
        }
    }

    fn check_located(&mut self, state: &AnchorState, line: &[u8]) -> Verdict {
        let is = |anchor: &Anchor| state.matches_line(anchor, line);
        let file = self.file.unwrap_or_default();
        if self.earlier.as_ref().is_some_and(is) {
            return Verdict::Decided(SearchResult::Located { file, lines: None }, None);
        }
        if self.confirmed.is_some_and(|confirmed| is(&confirmed.anchor)) {
            let lines = Some(self.lines);
            return Verdict::Decided(SearchResult::Located { file, lines }, None);
        }
        Verdict::Drop
    }

    fn check_file(&mut self, state: &AnchorState, line: &[u8]) -> Verdict {
        if let Some(point) = self.match_confirmed(state, line) {
            return Verdict::Decided(SearchResult::Confirmed, Some(point));
        }
        let is_candidate = |point: &ResumePoint| self.is_first_run && state.matches_line(&point.anchor, line);
        if self.confirmed.as_ref().is_some_and(is_candidate) {
            self.candidate = Some(self.lines);
            self.candidates += 1;
        }
        if !self.holds {
            return Verdict::Drop;
        }
        if let Some(unconfirmed) = &self.unconfirmed
            && self.lines <= self.unconfirmed_lines()
            && (state.matches(&unconfirmed.anchor, line) || is_candidate(unconfirmed))
        {
            let result = SearchResult::Unconfirmed { held: self.lines };
            return Verdict::Decided(result, self.unconfirmed);
        }
        Verdict::Hold
    }

    fn match_confirmed(&self, state: &AnchorState, line: &[u8]) -> Option<ResumePoint> {
        self.confirmed
            .filter(|confirmed| state.matches(&confirmed.anchor, line))
    }

    /// Returns the number of lines between the two resume points, an upper bound for held lines.
    fn unconfirmed_lines(&self) -> u64 {
        let from = self.confirmed.map_or(0, |confirmed| confirmed.seq_end);
        self.unconfirmed.map_or(0, |unconfirmed| unconfirmed.seq_end - from)
    }
}
