//! The position of the client in the log: the last cursor, and the lines printed since.

use std::collections::HashMap;

use bus::{cursor::Cursor, reassembly::Ranges};

use super::printer::Line;

/// Resumes a stream without repeating lines. The server sends a cursor about once a second; after a
/// reconnect, lines after the last cursor arrive again.
#[derive(Default)]
pub(super) struct ResumePosition {
    cursor: Option<String>,
    printed: HashMap<String, Ranges>,
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
        // A coarse cursor names no streams, so printed lines stay recorded.
        if Cursor::decode(&cursor).is_ok_and(|cursor| !cursor.coarse) {
            self.printed.clear();
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
    fn a_line_that_arrives_again_behind_a_cursor_is_printed_once() {
        let mut position = ResumePosition::default();
        assert!(position.insert(&line(1)) && position.insert(&line(2)) && !position.insert(&line(1)));
        assert!(position.may_have_gap());
        let mut cursor = Cursor {
            coarse: true,
            ..Cursor::default()
        };
        position.set_cursor(Some(cursor.encode()));
        assert!(!position.insert(&line(2)), "a coarse cursor covers no line");
        cursor.coarse = false;
        position.set_cursor(Some(cursor.encode()));
        assert!(
            position.insert(&line(2)),
            "an exact cursor covers all lines: the server repeats none"
        );
        assert!(!position.may_have_gap() && position.cursor() == Some(cursor.encode().as_str()));
    }
}
