//! Where a response joins what was had before: pure, a line at a time.

use bus::Timestamp;

use crate::anchor::{Mark, Progress};

/// What to find in a response before its lines can be numbered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seek {
    had: Option<Mark>,
    maybe: Option<Mark>,
    /// A line later than `had` can be was seen: it does not follow.
    had_is_absent: bool,
    held: u64,
    first_held: Option<Timestamp>,
    /// So many lines come up to and including the one that is had: the place is known, and the line proves it.
    counted: Option<u64>,
}

/// Where the response joins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Join {
    /// Right behind the line that is had for sure: what follows is next.
    Had,
    /// Only the end of what may have been sent is there: the lines up to it, so many, are held, and what is before them is lost.
    Maybe {
        /// Lines held up to and including the mark's.
        held: u64,
        /// The first one's time.
        first: Option<Timestamp>,
    },
    /// Nowhere. All lines are held.
    Absent {
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
    Joined(Join, Option<Mark>),
}

impl Seek {
    /// Looks for `had`, the end of what is had for sure, and where that is gone for `maybe`, the end of what may have been sent after it.
    /// `None`: there is nothing to find, numbering begins at 0.
    pub fn new(had: Option<Mark>, maybe: Option<Mark>) -> Option<Self> {
        let from = had.map_or(0, |had| had.seq_end);
        let maybe = maybe.filter(|maybe| maybe.seq_end > from);
        (had.is_some() || maybe.is_some()).then_some(Self {
            had,
            maybe,
            ..Self::default()
        })
    }

    /// Counts `lines` up to and including the one that is had. `None`: there are none.
    pub fn counted(lines: u64, had: Option<Mark>) -> Option<Self> {
        (lines > 0).then_some(Self {
            had,
            counted: Some(lines),
            ..Self::default()
        })
    }

    /// Looks at the line that `at` has just stepped over.
    pub fn look(&mut self, at: &Progress, line: &[u8]) -> Verdict {
        if let Some(left) = &mut self.counted {
            *left -= 1;
            if *left > 0 {
                return Verdict::Drop;
            }
            // Its ordinal was counted from elsewhere.
            let proof = self.had.filter(|had| at.is_line_of(&had.anchor, line));
            let first = (at.time != i64::MIN).then_some(Timestamp(at.time));
            return match proof {
                Some(had) => Verdict::Joined(Join::Had, Some(had)),
                None => Verdict::Joined(Join::Absent { first }, None),
            };
        }
        if let Some(had) = &self.had {
            if at.is_at(&had.anchor, line) {
                return Verdict::Joined(Join::Had, self.had);
            }
            if at.time < had.anchor.time && self.held == 0 {
                return Verdict::Drop;
            }
            self.had_is_absent |= at.time > had.anchor.high;
        } else {
            self.had_is_absent = true;
        }
        self.held += 1;
        if self.held == 1 && at.time != i64::MIN {
            self.first_held = Some(Timestamp(at.time));
        }
        let (held, first) = (self.held, self.first_held);
        if let Some(maybe) = &self.maybe
            && held <= self.unsure()
        {
            if at.is_at(&maybe.anchor, line) {
                return Verdict::Joined(Join::Maybe { held, first }, self.maybe);
            }
            if at.time <= maybe.anchor.high {
                return Verdict::Hold;
            }
        }
        if self.had_is_absent {
            Verdict::Joined(self.absent(), None)
        } else {
            Verdict::Hold
        }
    }

    /// Decides that nothing was found.
    pub fn absent(&self) -> Join {
        Join::Absent { first: self.first_held }
    }

    /// Lines that lie between the marks: what is held before the second one cannot be more.
    fn unsure(&self) -> u64 {
        let from = self.had.map_or(0, |had| had.seq_end);
        self.maybe.map_or(0, |maybe| maybe.seq_end - from)
    }
}
