//! Resuming a stream in a new response, and the gaps where it cannot be resumed.

use std::sync::Arc;

use bus::{Content, Gap, GapReason, StreamMetadata, Timestamp};

use super::{
    Absent, Rest, Stream, expected_lines,
    metadata::new_id,
    resume_search::{Join, Seek},
};
use crate::{anchor::fingerprint, publish::entry::Step};

impl Stream {
    /// From when on to read, so that the last line had is read again. `None`: from the beginning.
    pub fn since(&self) -> Option<Timestamp> {
        // A line without any timestamp before it cannot be asked for.
        self.had
            .filter(|had| had.anchor.time != i64::MIN)
            .map(|had| had.anchor.timestamp())
    }

    /// What a response must contain to go on from here.
    pub fn seek(&self) -> Option<Seek> {
        Seek::new(self.had, self.maybe)
    }

    /// A new response begins.
    pub fn begin(&mut self) {
        self.take_all();
        self.lines.begin(self.seek(), self.since().is_some());
        (self.news, self.absent) = (0, None);
        // What the response must contain says all.
        self.marks.clear();
    }

    /// A file was seen to hold this line: where it is still to come, it must.
    pub fn expect(&mut self, mark: expected_lines::Mark) {
        if self.had.is_none_or(|had| had.anchor.time < mark.time.0) {
            self.marks.expect(mark);
        }
    }

    /// What is read next are the lines behind the seq `from` of this stream: those that are had are counted and dropped, and the last of them proves the place.
    pub fn resume_from(&mut self, from: u64) {
        self.lines
            .begin(Seek::counted(self.next_seq - from.min(self.next_seq), self.had), false);
        self.absent = None;
    }

    /// Before the next line others may be missing: tells so, in its place.
    pub fn miss(&mut self, reason: GapReason, to: Timestamp) {
        self.take_all();
        self.lose(reason, to);
        self.next_seq = self.used;
        self.lines.begin(None, false);
    }

    /// What is read next, first at this time, does not join what was had: tells so, and begins a new stream with it.
    pub fn part_at(&mut self, first: Option<Timestamp>) {
        self.absent = Some(Absent { first });
        self.part();
        self.lines.begin(None, false);
    }

    /// The response ended, as a plain one does: where it did not join, it never will.
    pub fn give_up_joining(&mut self) {
        let join = self.lines.end_seek();
        self.join(join);
    }

    /// Whether the response turned out not to join. Its lines wait for [`part`](Self::part), or go with the response.
    pub fn is_absent(&self) -> bool {
        self.absent.is_some()
    }

    /// The response is this instance's and does not join: tells what is not known. Where nothing read is in doubt the stream goes on; else a new one begins
    /// with the response's lines.
    pub fn part(&mut self) {
        if let Some(Absent { first }) = self.absent.take() {
            let first = first.unwrap_or_else(Timestamp::now);
            if self.live && self.used == self.next_seq {
                self.rotated(first);
                return self.flush();
            }
            tracing::warn!(stream = %self.id(), "log does not join what was read of it");
            self.lose(GapReason::Away, first);
            self.push(self.used, Content::End, None);
            self.begin_anew();
            self.flush();
        }
    }

    /// Whether it is still undecided where the response joins.
    pub fn is_seeking(&self) -> bool {
        self.lines.is_seeking()
    }

    /// Lines numbered since the response began, and how it ended.
    pub fn ended(&mut self) -> (u64, Rest) {
        self.take_all();
        (self.news, self.rest())
    }

    /// How the response ends so far.
    pub fn rest(&self) -> Rest {
        let rest = self.lines.rest();
        if rest.is_empty() {
            Rest::default()
        } else {
            Rest(rest.len(), fingerprint(rest))
        }
    }

    /// Text at the end of the response that is no line and no beginning of one: the kubelet speaks, or a timestamp was torn.
    pub fn foreign_rest(&self) -> Option<&[u8]> {
        let rest = self.lines.rest();
        let foreign = !rest.is_empty() && self.lines.rest_is_whole() && Timestamp::split_line(rest).is_none();
        foreign.then_some(rest)
    }

    pub(super) fn join(&mut self, join: Option<Join>) {
        match join {
            None | Some(Join::Had) => {}
            Some(Join::Maybe { held, first }) => {
                let seq = self.used - held.min(self.used);
                let lost = seq - self.next_seq;
                if lost > 0 {
                    tracing::warn!(stream = %self.id(), lost, "lines rotated away while the collector was away");
                    self.tell(
                        self.next_seq,
                        Gap {
                            lines: lost,
                            reason: GapReason::Away,
                            from: self.had.map(|had| had.anchor.timestamp()),
                            to: first,
                        },
                    );
                }
                self.next_seq = seq;
            }
            Some(Join::Absent { first }) => self.absent = Some(Absent { first }),
        }
    }

    pub(super) fn begin_anew(&mut self) {
        // The parts of the id were those of an id before: they are valid.
        if let Ok(stream) = new_id(&self.key) {
            let metadata = StreamMetadata {
                stream,
                ..StreamMetadata::clone(&self.metadata)
            };
            self.metadata = Arc::new(metadata);
            self.outlet.push(Step::Begin(Arc::clone(&self.metadata)));
            (self.next_seq, self.used, self.had, self.maybe) = (0, 0, None, None);
        }
    }

    /// What was had may not be all: tells the lines that have numbers as such, and the others by their times.
    pub(super) fn lose(&mut self, reason: GapReason, to: Timestamp) {
        let had = self.had.map(|had| had.anchor.timestamp());
        let farthest = self
            .maybe
            .map(|maybe| maybe.anchor.timestamp())
            .filter(|_| self.used > self.next_seq);
        if self.used > self.next_seq {
            self.tell(
                self.next_seq,
                Gap {
                    lines: self.used - self.next_seq,
                    reason: reason.clone(),
                    from: had,
                    to: farthest,
                },
            );
        }
        self.tell(
            self.used,
            Gap {
                lines: 0,
                reason,
                from: farthest.or(had),
                to: Some(to),
            },
        );
    }
}
