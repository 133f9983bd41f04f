//! Where a reader is in a log: the last cursor, and what it has printed behind it.

use std::collections::HashMap;

use bus::{cursor::Cursor, reassembly::Ranges};

use super::printer::Line;

/// A server tells a cursor once a second; what came since the last comes again behind it.
#[derive(Default)]
pub(super) struct Place {
    cursor: Option<String>,
    printed: HashMap<String, Ranges>,
}

impl Place {
    /// From where to go on.
    pub(super) fn cursor(&self) -> Option<&str> {
        self.cursor.as_deref()
    }

    /// Lines were printed and no cursor was told: a reading that begins anew may begin too late.
    pub(super) fn may_have_missed(&self) -> bool {
        self.cursor.is_none() && !self.printed.is_empty()
    }

    /// Notes a line. False where it was printed already. A notice has no number, and is always news.
    pub(super) fn is_new(&mut self, line: &Line) -> bool {
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

    /// The server told a cursor.
    pub(super) fn told(&mut self, cursor: Option<String>) {
        let Some(cursor) = cursor else { return };
        // A coarse one names no streams: what was printed has to be remembered beyond it.
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
    fn a_line_is_printed_once_also_when_it_comes_again_behind_a_cursor() {
        let mut place = Place::default();
        assert!(place.is_new(&line(1)) && place.is_new(&line(2)) && !place.is_new(&line(1)));
        assert!(place.may_have_missed());
        let mut cursor = Cursor {
            coarse: true,
            ..Cursor::default()
        };
        place.told(Some(cursor.encode()));
        assert!(!place.is_new(&line(2)), "a coarse cursor settles nothing");
        cursor.coarse = false;
        place.told(Some(cursor.encode()));
        assert!(
            place.is_new(&line(2)),
            "an exact one does: the server sends nothing twice"
        );
        assert!(!place.may_have_missed() && place.cursor() == Some(cursor.encode().as_str()));
    }
}
