//! One container instance's output as a stream: every line its number, every hole its loss, and the end.

use std::sync::Arc;

use bus::{Batch, Content, Epoch, InvalidStreamId, Loss, LossReason, Origin, StreamId, Timestamp};

use crate::{
    anchor::{Mark, fingerprint},
    checkpoint::Record,
    instance::{Instance, InstanceKey},
    lines::{Lines, Slice},
    publish::{Outlet, Step},
    seek::{Join, Seek},
};

/// What is held of a stream while the bus is slow; then its log is not read on. Four batches: one on the way, the rest gathered.
pub const MAX_HELD_BYTES: usize = 4 << 20;

/// One container instance's output as a stream.
pub struct Stream {
    key: InstanceKey,
    origin: Arc<Origin>,
    lines: Lines,
    outlet: Outlet,
    next_seq: u64,
    /// Seqs below may name lines already.
    used: u64,
    /// The last line that was read and numbered.
    had: Option<Mark>,
    /// The farthest line that may have been sent before a restart.
    maybe: Option<Mark>,
    /// Lines numbered since the response began.
    news: u64,
    /// The response does not join: to be believed once it is known to be this instance's.
    absent: Option<Absent>,
}

/// A response that does not contain the line to go on from; where its lines begin.
#[derive(Clone, Copy, Debug)]
struct Absent {
    first: Option<Timestamp>,
}

/// How a response ended: alike twice, and it has all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Rest(usize, u64);

/// What the streams of an instance have in common, with a new epoch.
pub fn new_origin(instance: &Instance) -> Result<Origin, InvalidStreamId> {
    Ok(Origin {
        app: instance.app.clone(),
        process: instance.process.clone(),
        stream: new_id(&instance.key)?,
        node: instance.node.clone(),
        source: "app".to_owned(),
        fd: instance.key.fd(),
        about: None,
    })
}

fn new_id(key: &InstanceKey) -> Result<StreamId, InvalidStreamId> {
    StreamId::new(&key.pod_uid, &key.container, &key.container_id, Epoch::new())
}

impl Stream {
    /// Goes on where the record stands; one that is still to begin tells first what came before it and was not seen.
    pub fn new(key: InstanceKey, origin: Origin, record: &Record, outlet: Outlet) -> Self {
        let seq_end = |mark: Option<Mark>| mark.map_or(0, |mark| mark.seq_end);
        let mut stream = Self {
            key,
            origin: Arc::new(origin),
            lines: Lines::default(),
            outlet,
            next_seq: seq_end(record.accepted),
            used: seq_end(record.accepted).max(seq_end(record.sent)),
            had: record.accepted,
            maybe: record.sent,
            news: 0,
            absent: None,
        };
        if let (Some(unseen), None) = (record.unseen, record.accepted) {
            let loss = Loss {
                lines: 0,
                reason: LossReason::Gone,
                from: unseen.from.map(Timestamp),
                to: Some(Timestamp(unseen.to)),
            };
            stream.tell(0, loss);
        }
        stream
    }

    /// Its id now.
    pub fn id(&self) -> &StreamId {
        &self.origin.stream
    }

    /// What its batches have in common.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Whose it is.
    pub fn key(&self) -> &InstanceKey {
        &self.key
    }

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

    /// Whether nothing was ever read of it.
    pub fn is_blank(&self) -> bool {
        self.used == 0
    }

    /// Whether nothing is held of it either.
    pub fn is_untouched(&self) -> bool {
        self.is_blank() && self.lines.held_bytes() == 0
    }

    /// A new response begins.
    pub fn begin(&mut self) {
        self.take_all();
        self.lines.begin(self.seek(), self.since().is_some());
        (self.news, self.absent) = (0, None);
    }

    /// What is read next are the lines behind the seq `from` of this stream: those that are had are counted and dropped, and the last of them proves the place.
    pub fn resume_from(&mut self, from: u64) {
        self.lines
            .begin(Seek::counted(self.next_seq - from.min(self.next_seq), self.had), false);
        self.absent = None;
    }

    /// The seq that the next line to be read takes.
    pub fn end(&self) -> u64 {
        self.next_seq + self.lines.held_lines()
    }

    /// The seq up to which the bus has it. `None`: it was begun anew, and the bus does not have all of the one before.
    pub fn accepted(&self) -> Option<u64> {
        self.outlet.accepted(self.id())
    }

    /// Writes how far the bus has it.
    pub fn save(&self) {
        self.outlet.save();
    }

    /// Before the next line others may be missing: tells so, in its place.
    pub fn miss(&mut self, reason: LossReason, to: Timestamp) {
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

    /// Takes in a frame of the response.
    pub fn read(&mut self, frame: &[u8]) {
        let join = self.lines.push(frame);
        self.join(join);
        self.flush();
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

    /// The response is this instance's and does not join: tells what is not known, and begins a new stream with its lines.
    pub fn part(&mut self) {
        if let Some(Absent { first }) = self.absent.take() {
            tracing::warn!(stream = %self.id(), "log does not join what was read of it");
            self.lose(LossReason::Away, first.unwrap_or_else(Timestamp::now));
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

    /// Whether there is room to read on.
    pub fn has_room(&self) -> bool {
        self.outlet.queued_bytes() + self.lines.held_bytes() < MAX_HELD_BYTES
    }

    /// Returns when a batch was accepted and the next is on its way. Never while idle.
    ///
    /// *Cancel safety*: nothing is lost.
    pub async fn progress(&mut self) {
        self.outlet.progress().await;
        self.flush();
    }

    /// Publishes all complete lines, and writes the record.
    ///
    /// *Cancel safety*: what is not accepted stays.
    pub async fn drain(&mut self) {
        self.take_all();
        self.outlet.drain().await;
    }

    /// The log has been read to its end, and its container has terminated.
    pub fn complete(&mut self) {
        self.lines.finish_rest();
        self.take_all();
        self.finish();
    }

    /// The rest of the log can no longer be read: ends, and tells so where there was a rest to be expected.
    pub fn gone(&mut self, expected: bool) {
        self.lines.drop_rest();
        self.take_all();
        if expected {
            self.lose(LossReason::Gone, Timestamp::now());
        }
        self.finish();
    }

    fn join(&mut self, join: Option<Join>) {
        match join {
            None | Some(Join::Had) => {}
            Some(Join::Maybe { held, first }) => {
                let seq = self.used - held.min(self.used);
                let lost = seq - self.next_seq;
                if lost > 0 {
                    tracing::warn!(stream = %self.id(), lost, "lines rotated away while the collector was away");
                    self.tell(
                        self.next_seq,
                        Loss {
                            lines: lost,
                            reason: LossReason::Away,
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

    /// What was had may not be all: tells the lines that have numbers as such, and the others by their times.
    fn lose(&mut self, reason: LossReason, to: Timestamp) {
        let had = self.had.map(|had| had.anchor.timestamp());
        let farthest = self
            .maybe
            .map(|maybe| maybe.anchor.timestamp())
            .filter(|_| self.used > self.next_seq);
        if self.used > self.next_seq {
            self.tell(
                self.next_seq,
                Loss {
                    lines: self.used - self.next_seq,
                    reason: reason.clone(),
                    from: had,
                    to: farthest,
                },
            );
        }
        self.tell(
            self.used,
            Loss {
                lines: 0,
                reason,
                from: farthest.or(had),
                to: Some(to),
            },
        );
    }

    fn tell(&mut self, seq: u64, loss: Loss) {
        self.push(seq, Content::Loss(loss), None);
    }

    fn finish(&mut self) {
        let end = self.batch(self.used, Content::End);
        self.outlet.push(Step::Finish(end));
    }

    fn begin_anew(&mut self) {
        // The parts of the id were those of an id before: they are valid.
        if let Ok(stream) = new_id(&self.key) {
            let origin = Origin {
                stream,
                ..Origin::clone(&self.origin)
            };
            self.origin = Arc::new(origin);
            self.outlet.push(Step::Begin(Arc::clone(&self.origin)));
            (self.next_seq, self.used, self.had, self.maybe) = (0, 0, None, None);
        }
    }

    /// Lines go out at once when nothing is on its way, and gather while something is.
    fn flush(&mut self) {
        if self.outlet.is_idle()
            && self.absent.is_none()
            && let Some(slice) = self.lines.take()
        {
            self.number(slice);
        }
    }

    fn take_all(&mut self) {
        while self.absent.is_none()
            && let Some(slice) = self.lines.take()
        {
            self.number(slice);
        }
    }

    fn number(&mut self, slice: Slice) {
        let Slice { data, lines, part, end } = slice;
        let seq = self.next_seq;
        self.next_seq += lines;
        self.news += lines;
        self.used = self.used.max(self.next_seq);
        let mark = Mark {
            seq_end: self.next_seq,
            anchor: end,
        };
        self.had = Some(mark);
        self.push(seq, Content::Lines { data, lines, part }, Some(mark));
    }

    fn push(&mut self, seq: u64, content: Content, end: Option<Mark>) {
        let batch = self.batch(seq, content);
        self.outlet.push(Step::Batch(batch, end));
    }

    fn batch(&self, seq: u64, content: Content) -> Batch {
        Batch {
            origin: Arc::clone(&self.origin),
            seq,
            content,
        }
    }
}
