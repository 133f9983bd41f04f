//! Where a response joins what was had before: pure, a line at a time.

use bus::Timestamp;

use crate::anchor::{AnchorState, ResumePoint};

/// What to find in a response before its lines can be numbered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResumeSearch {
    confirmed: Option<ResumePoint>,
    unconfirmed: Option<ResumePoint>,
    /// A line later than `had` can be was seen: it does not follow.
    confirmed_is_absent: bool,
    held: u64,
    first_held: Option<Timestamp>,
    /// So many lines come up to and including the one that is had: the place is known, and the line proves it.
    counted: Option<u64>,
}

/// Where the response joins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SearchResult {
    /// Right behind the line that is had for sure: what follows is next.
    Confirmed,
    /// Only the end of what may have been sent is there: the lines up to it, so many, are held, and what is before them is lost.
    Unconfirmed {
        /// Lines held up to and including the mark's.
        held: u64,
        /// The first one's time.
        first: Option<Timestamp>,
    },
    /// Nowhere. All lines are held.
    NotFound {
        /// The first one's time; `None` where there is none.
        first: Option<Timestamp>,
    },
}

/// What becomes of a line that was looked at.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It lies before the mark: drop it.
    Drop,
    /// Keep it until it is decided.
    Hold,
    /// Decided, at this line.
    Decided(SearchResult, Option<ResumePoint>),
}

impl ResumeSearch {
    /// Looks for `had`, the end of what is had for sure, and where that is gone for `maybe`, the end of what may have been sent after it.
    /// `None`: there is nothing to find, numbering begins at 0.
    pub fn new(confirmed: Option<ResumePoint>, unconfirmed: Option<ResumePoint>) -> Option<Self> {
        let from = confirmed.map_or(0, |confirmed| confirmed.seq_end);
        let unconfirmed = unconfirmed.filter(|unconfirmed| unconfirmed.seq_end > from);
        (confirmed.is_some() || unconfirmed.is_some()).then_some(Self {
            confirmed,
            unconfirmed,
            ..Self::default()
        })
    }

    /// Counts `lines` up to and including the one that is had. `None`: there are none.
    pub fn counted(lines: u64, confirmed: Option<ResumePoint>) -> Option<Self> {
        (lines > 0).then_some(Self {
            confirmed,
            counted: Some(lines),
            ..Self::default()
        })
    }

    /// Looks at the line that `at` has just stepped over.
    pub fn check_line(&mut self, state: &AnchorState, line: &[u8]) -> Verdict {
        if let Some(left) = &mut self.counted {
            *left -= 1;
            if *left > 0 {
                return Verdict::Drop;
            }
            // Its ordinal was counted from elsewhere.
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

    /// Decides that nothing was found.
    pub fn not_found(&self) -> SearchResult {
        SearchResult::NotFound { first: self.first_held }
    }

    /// Lines that lie between the marks: what is held before the second one cannot be more.
    fn unconfirmed_lines(&self) -> u64 {
        let from = self.confirmed.map_or(0, |confirmed| confirmed.seq_end);
        self.unconfirmed.map_or(0, |unconfirmed| unconfirmed.seq_end - from)
    }
}
