//! Finds where a response continues what was read before, one line at a time, without I/O.

use bus::Timestamp;

use crate::anchor::{AnchorState, ResumePoint};

/// What to find in a response before its lines can be numbered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResumeSearch {
    confirmed: Option<ResumePoint>,
    unconfirmed: Option<ResumePoint>,
    /// A line later than the confirmed one was seen: it does not follow.
    confirmed_is_absent: bool,
    held: u64,
    first_held: Option<Timestamp>,
    /// The number of lines up to and including the confirmed one, if the position is known; its
    /// anchor proves it.
    counted: Option<u64>,
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
        /// The time of the first held line.
        first: Option<Timestamp>,
    },
    /// Neither was found. All lines are held.
    NotFound {
        /// The time of the first held line, if there is one.
        first: Option<Timestamp>,
    },
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
    /// numbering starts at 0.
    pub fn new(confirmed: Option<ResumePoint>, unconfirmed: Option<ResumePoint>) -> Option<Self> {
        let from = confirmed.map_or(0, |confirmed| confirmed.seq_end);
        let unconfirmed = unconfirmed.filter(|unconfirmed| unconfirmed.seq_end > from);
        (confirmed.is_some() || unconfirmed.is_some()).then_some(Self {
            confirmed,
            unconfirmed,
            ..Self::default()
        })
    }

    /// Counts `lines` up to and including the confirmed one. Returns `None` if there are none.
    pub fn counted(lines: u64, confirmed: Option<ResumePoint>) -> Option<Self> {
        (lines > 0).then_some(Self {
            confirmed,
            counted: Some(lines),
            ..Self::default()
        })
    }

    /// Checks the line that was just added to `state`.
    pub fn check_line(&mut self, state: &AnchorState, line: &[u8]) -> Verdict {
        if let Some(left) = &mut self.counted {
            *left -= 1;
            if *left > 0 {
                return Verdict::Drop;
            }
            // Its ordinal was counted from another start.
            let proof = self
                .confirmed
                .filter(|confirmed| state.matches_line(&confirmed.anchor, line));
            let first = (state.time != i64::MIN).then_some(Timestamp(state.time));
            return match proof {
                Some(confirmed) => Verdict::Decided(SearchResult::Confirmed, Some(confirmed)),
                None => Verdict::Decided(SearchResult::NotFound { first }, None),
            };
        }
        if let Some(confirmed) = &self.confirmed {
            if state.matches(&confirmed.anchor, line) {
                return Verdict::Decided(SearchResult::Confirmed, self.confirmed);
            }
            if state.time < confirmed.anchor.time && self.held == 0 {
                return Verdict::Drop;
            }
            self.confirmed_is_absent |= state.time > confirmed.anchor.high;
        } else {
            self.confirmed_is_absent = true;
        }
        self.held += 1;
        if self.held == 1 && state.time != i64::MIN {
            self.first_held = Some(Timestamp(state.time));
        }
        let (held, first) = (self.held, self.first_held);
        if let Some(unconfirmed) = &self.unconfirmed
            && held <= self.unconfirmed_lines()
        {
            if state.matches(&unconfirmed.anchor, line) {
                return Verdict::Decided(SearchResult::Unconfirmed { held, first }, self.unconfirmed);
            }
            if state.time <= unconfirmed.anchor.high {
                return Verdict::Hold;
            }
        }
        if self.confirmed_is_absent {
            Verdict::Decided(self.not_found(), None)
        } else {
            Verdict::Hold
        }
    }

    /// Returns the result of a search without a match.
    pub fn not_found(&self) -> SearchResult {
        SearchResult::NotFound { first: self.first_held }
    }

    /// Returns the number of lines between the two resume points, an upper bound for held lines.
    fn unconfirmed_lines(&self) -> u64 {
        let from = self.confirmed.map_or(0, |confirmed| confirmed.seq_end);
        self.unconfirmed.map_or(0, |unconfirmed| unconfirmed.seq_end - from)
    }
}
