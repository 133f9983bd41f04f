//! Log files that a probe saw and that a follow must therefore still deliver.

use std::collections::VecDeque;

use bus::{GapReason, Timestamp};
use bytes::Bytes;

use crate::anchor::fingerprint;

/// Upper bound for pending files; the last one stands for all that follow it.
const MAX_EXPECTED: usize = 64;

/// The start of a log file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileStart {
    /// The hash of the first line, which identifies the file.
    pub hash: u64,
    /// The time of the first line.
    pub time: Timestamp,
    /// The first line, or the start of it.
    first: Bytes,
    /// The second line. The first may be the rest of a line that the rotation split, which a follow
    /// prints as one.
    second: Option<Bytes>,
}

/// Files that must arrive, oldest first.
#[derive(Debug, Default)]
pub struct ExpectedFiles {
    pending: VecDeque<ExpectedFile>,
    reached: Option<u64>,
}

#[derive(Debug)]
struct ExpectedFile {
    start: FileStart,
    /// Files before it may have come and gone unseen.
    follows_silence: bool,
}

/// A place where a follow continued with a later file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Jump {
    /// The offset of the later file's first line.
    pub at: usize,
    /// What the jump proves.
    pub reason: GapReason,
}

impl FileStart {
    /// Parses the start of a file. Returns `None` if it has no complete line with a timestamp.
    pub fn parse(body: &Bytes) -> Option<Self> {
        let (time, _) = Timestamp::split_line(body)?;
        let end = memchr::memchr(b'\n', body)? + 1;
        let second = body.slice(end..);
        let second = second.slice(..memchr::memchr(b'\n', &second).map_or(second.len(), |newline| newline + 1));
        Some(Self {
            hash: fingerprint(&body[..end]),
            time,
            first: body.slice(..end),
            second: Timestamp::split_line(&second).is_some().then_some(second),
        })
    }

    /// Returns the offset of the file's first line, or of its second if the first is not there.
    fn find_in(&self, data: &[u8]) -> Option<usize> {
        let find = |line: &Bytes| {
            let mut found = memchr::memmem::find_iter(data, line);
            found.find(|at| *at == 0 || data[*at - 1] == b'\n')
        };
        find(&self.first).or_else(|| find(self.second.as_ref()?))
    }
}

impl ExpectedFiles {
    /// Adds the current file, unless it is the last one.
    pub fn push(&mut self, start: FileStart, follows_silence: bool) {
        if self.pending.len() < MAX_EXPECTED && self.pending.back().is_none_or(|last| last.start != start) {
            self.pending.push_back(ExpectedFile { start, follows_silence });
        }
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Removes all. Returns whether one of them is another file than `current`, in which the follow
    /// is now.
    pub fn reach(&mut self, current: u64) -> bool {
        self.reached = Some(current);
        let skipped = self.pending.iter().any(|expected| expected.start.hash != current);
        self.pending.clear();
        skipped
    }

    /// Returns the last expected file that arrived.
    pub fn reached(&self) -> Option<u64> {
        self.reached
    }

    /// Returns the next place where files were skipped. Lines must be passed in order.
    pub fn next_jump(&mut self, data: &[u8]) -> Option<Jump> {
        while let Some((index, at)) = self.first_in(data) {
            let mut passed = self.pending.drain(..=index);
            let arrived = passed.next_back()?;
            self.reached = Some(arrived.start.hash);
            let reason = match (passed.next(), arrived.follows_silence) {
                (Some(_), _) => GapReason::Rotated,
                (None, true) => GapReason::Suspected,
                (None, false) => continue,
            };
            drop(passed);
            return Some(Jump { at, reason });
        }
        None
    }

    fn first_in(&self, data: &[u8]) -> Option<(usize, usize)> {
        let mut all = self.pending.iter().enumerate();
        all.find_map(|(index, expected)| Some((index, expected.start.find_in(data)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frozen clock: all lines have one timestamp.
    fn text(lines: &[u32]) -> Bytes {
        let lines = lines
            .iter()
            .map(|n| format!("2026-11-23T07:00:00.000000000Z line {n}\n"));
        lines.collect::<String>().into()
    }

    fn start(n: u32) -> FileStart {
        FileStart::parse(&text(&[n, n + 1])).unwrap()
    }

    #[test]
    fn only_a_file_that_was_passed_is_a_gap() {
        let mut expected = ExpectedFiles::default();
        expected.push(start(5), false);
        assert_eq!(expected.next_jump(&text(&[3, 4])), None, "not yet passed");
        assert_eq!(expected.next_jump(&text(&[4, 5, 6])), None, "it arrived");
        assert_eq!(expected.reached(), Some(start(5).hash));
        for n in [12, 15, 20] {
            expected.push(start(n), false);
        }
        let jump = expected.next_jump(&text(&[10, 11, 20, 21])).unwrap();
        assert_eq!(
            (jump.at, jump.reason),
            (text(&[10, 11]).len(), GapReason::Rotated),
            "two files, one gap"
        );
        assert!(expected.is_empty());
    }

    #[test]
    fn a_file_after_a_silence_is_suspected_to_follow_others() {
        let mut expected = ExpectedFiles::default();
        expected.push(start(5), true);
        let jump = expected.next_jump(&text(&[5, 6])).unwrap();
        assert_eq!((jump.at, jump.reason), (0, GapReason::Suspected));
        expected.push(start(8), false);
        assert!(!expected.reach(start(8).hash) && expected.is_empty());
        expected.push(start(9), false);
        assert!(expected.reach(start(11).hash));
    }

    #[test]
    fn the_rest_of_a_split_line_is_not_needed_to_recognize_a_file() {
        let mut expected = ExpectedFiles::default();
        expected.push(start(5), true);
        let joined = Bytes::from_static(b"2026-11-23T07:00:00.000000000Z start of line 5\n");
        let data = [joined.clone(), text(&[6])].concat();
        assert_eq!(expected.next_jump(&data).map(|jump| jump.at), Some(joined.len()));
        assert_eq!(FileStart::parse(&Bytes::from_static(b"failed to open\n")), None);
    }
}
