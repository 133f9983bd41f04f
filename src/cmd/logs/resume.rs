//! The position of the client in the log: the last cursor, and the lines printed since.

use std::{collections::HashMap, time::Duration};

use bus::reassembly::Ranges;
use system::clock::{self, Instant};

use super::printer::Line;

/// How long printed lines are recorded at least: longer than a replica that continues at a cursor
/// may repeat.
const RECORDED: Duration = Duration::from_secs(5 * 60);

/// Resumes a stream without repeating lines: after a reconnect, lines after the last cursor arrive
/// again, and with a coarse cursor also earlier ones.
#[derive(Default)]
pub(super) struct ResumePosition {
    cursor: Option<String>,
    printed: HashMap<String, Ranges>,
    /// Lines printed before `printed` was begun.
    printed_before: HashMap<String, Ranges>,
    /// When `printed` was begun.
    begun: Option<Instant>,
}

impl ResumePosition {
    /// Returns the cursor to resume at.
    pub(super) fn cursor(&self) -> Option<&str> {
        self.cursor.as_deref()
    }

    /// Returns whether lines were printed before the first cursor: a new request without a cursor
    /// may begin after them.
    pub(super) fn may_have_gap(&self) -> bool {
        self.cursor.is_none() && !self.printed.is_empty()
    }

    /// Records a line and returns whether it is new. A platform message without a sequence number
    /// is always new.
    pub(super) fn insert(&mut self, line: &Line) -> bool {
        let (Some(stream), Some(seq)) = (line.stream.as_deref(), line.seq) else {
            return true;
        };
        if !self.printed.contains_key(stream) {
            self.printed.insert(stream.to_owned(), Ranges::default());
        }
        let seqs = seq..seq.saturating_add(1);
        let before = self.printed_before.get(stream);
        if before.is_some_and(|printed| printed.covers(&seqs)) {
            return false;
        }
        match self.printed.get_mut(stream) {
            Some(printed) if !printed.covers(&seqs) => {
                printed.insert(seqs);
                true
            }
            _ => false,
        }
    }

    /// Records a cursor from the server.
    pub(super) fn set_cursor(&mut self, cursor: Option<String>) {
        let Some(cursor) = cursor else { return };
        let begun = *self.begun.get_or_insert_with(clock::steady);
        if clock::since(begun) > RECORDED {
            self.printed_before = std::mem::take(&mut self.printed);
            self.begun = None;
        }
        self.cursor = Some(cursor);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(seq: u64) -> Line<'static> {
        Line {
            stream: Some("a/b/c/1-1".into()),
            seq: Some(seq),
            ..Line::default()
        }
    }

    #[test]
    fn a_line_that_arrives_again_is_printed_once() {
        let mut position = ResumePosition::default();
        assert!(position.insert(&line(1)) && position.insert(&line(2)) && !position.insert(&line(1)));
        assert!(position.may_have_gap());
        position.set_cursor(Some("c".to_owned()));
        assert!(
            !position.insert(&line(2)),
            "a replica may repeat lines before its cursor"
        );
        assert!(!position.may_have_gap() && position.cursor() == Some("c"));
        let long_ago = clock::steady().checked_sub(RECORDED * 2);
        let Some(long_ago) = long_ago else { return };
        for seq in [3, 4] {
            position.begun = Some(long_ago);
            position.set_cursor(Some("d".to_owned()));
            assert!(position.insert(&line(seq)) && !position.insert(&line(seq - 1)), "{seq}");
        }
        assert!(position.insert(&line(1)), "forgotten");
    }
}
