//! One container instance's output as a stream: every line its number, every hole its loss, and the end.

pub mod lines;
pub mod metadata;
pub mod number;
pub mod resume_search;
mod split;

use std::sync::Arc;

use bus::{Batch, Content, Gap, GapReason, StreamId, StreamMetadata, Timestamp};

use crate::{
    anchor::{Mark, fingerprint},
    api::rotation::{self, Marks},
    instance::InstanceKey,
    publish::checkpoint::Record,
    publish::context::Step,
    publish::outbox::{Outlet, SPOOL_AFTER},
    stream::lines::Lines,
    stream::metadata::new_id,
    stream::number::Above,
    stream::resume_search::{Join, Seek},
};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// What is held of a stream in memory while the bus is slow; then it goes to disk. Four batches: one on the way, the rest gathered.
const MAX_HELD_BYTES: usize = 4 << 20;

/// What a stream may hold while all together hold too much: below it there is little to gain.
const MAX_HELD_CROWDED: usize = 256 << 10;

/// What goes to disk gathers until it is so much, or [`SPOOL_AFTER`] old: a write a line would be slow, and longer is more to lose.
const SPOOL_PIECE: usize = 256 << 10;

/// One container instance's output as a stream.
pub struct Stream {
    key: InstanceKey,
    pub(crate) metadata: Arc<StreamMetadata>,
    lines: Lines,
    pub(crate) outlet: Outlet,
    pub(crate) next_seq: u64,
    /// Seqs below may name lines already.
    pub(crate) used: u64,
    /// The last line that was read and numbered.
    pub(crate) had: Option<Mark>,
    /// The farthest line that may have been sent before a restart.
    pub(crate) maybe: Option<Mark>,
    /// Lines numbered since the response began.
    pub(crate) news: u64,
    /// The response does not join: to be believed once it is known to be this instance's.
    absent: Option<Absent>,
    /// Lines that files were seen to hold, and that must come.
    pub(crate) marks: Marks,
    /// A response joined, or began the log, in this process: what lies before is all had.
    pub(crate) live: bool,
    /// Where a rotation was told last.
    pub(crate) rotated_at: Option<u64>,
    /// What the app printed above its limit, and was not told yet.
    pub(crate) above: Option<Above>,
    /// Since when something gathers that is not to wait for long: lines for the disk, or a loss.
    gathering: Option<Instant>,
    /// Its end is on its way: nothing is left to be read.
    finished: bool,
}

/// A response that does not contain the line to go on from; where its lines begin.
#[derive(Clone, Copy, Debug)]
struct Absent {
    first: Option<Timestamp>,
}

/// How a response ended: alike twice, and it has all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Rest(usize, u64);

impl Stream {
    /// Goes on where the record stands; one that is still to begin tells first what came before it and was not seen.
    pub fn new(key: InstanceKey, metadata: StreamMetadata, record: &Record, outlet: Outlet) -> Self {
        let seq_end = |mark: Option<Mark>| mark.map_or(0, |mark| mark.seq_end);
        let spooled = outlet.spooled();
        // What is on disk is had: reading goes on behind it, in the stream that it ends with.
        let is_renewed = spooled.stream.as_ref().is_some_and(|stream| *stream != metadata.stream);
        let (accepted, sent) = if is_renewed {
            (None, None)
        } else {
            (record.accepted, record.sent)
        };
        let had = spooled.read.or(accepted);
        let mut stream = Self {
            key,
            metadata: Arc::new(StreamMetadata {
                stream: spooled.stream.clone().unwrap_or_else(|| metadata.stream.clone()),
                ..metadata
            }),
            lines: Lines::default(),
            outlet,
            next_seq: seq_end(had),
            used: seq_end(had).max(seq_end(sent)),
            had,
            maybe: sent,
            news: 0,
            absent: None,
            marks: Marks::default(),
            live: false,
            rotated_at: None,
            above: None,
            gathering: None,
            finished: spooled.finished,
        };
        if let (Some(unseen), None, None) = (record.unseen, record.accepted, spooled.stream) {
            let loss = Gap {
                lines: 0,
                reason: GapReason::Gone,
                from: unseen.from.map(Timestamp),
                to: Some(Timestamp(unseen.to)),
            };
            stream.tell(0, loss);
        }
        stream
    }

    /// Its id now.
    pub fn id(&self) -> &StreamId {
        &self.metadata.stream
    }

    /// What its batches have in common.
    pub fn metadata(&self) -> &StreamMetadata {
        &self.metadata
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
        // What the response must contain says all.
        self.marks.clear();
    }

    /// A file was seen to hold this line: where it is still to come, it must.
    pub fn expect(&mut self, mark: rotation::Mark) {
        if self.had.is_none_or(|had| had.anchor.time < mark.time.0) {
            self.marks.expect(mark);
        }
    }

    /// The time of the last line that was read.
    pub fn last_read(&self) -> Option<Timestamp> {
        self.lines.last_read()
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

    /// Whether there is room to read on: always, unless the disk refuses what the bus does not take.
    pub fn has_room(&self) -> bool {
        self.outlet.queued_bytes() < MAX_HELD_BYTES
    }

    /// Whether its end is on its way: nothing is left to be read.
    pub fn is_finished(&self) -> bool {
        self.finished
    }

    /// Returns when something happened to what is on its way. Never while idle.
    ///
    /// *Cancel safety*: nothing is lost.
    pub async fn progress(&mut self) {
        let gathered = self.gathering.map(|since| since + SPOOL_AFTER);
        let gathered = async {
            match gathered {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.outlet.progress() => {}
            () = gathered => self.take_all(),
        }
        self.flush();
    }

    /// Publishes all complete lines, and writes the record.
    ///
    /// *Cancel safety*: what is not accepted stays.
    pub async fn drain(&mut self) {
        self.take_all();
        self.outlet.drain().await;
    }

    /// As [`drain`](Self::drain), until the collector stops; then as [`drain_or_keep`](Self::drain_or_keep). Returns whether it is the former.
    pub async fn drain_until(&mut self, shutdown: &CancellationToken) -> bool {
        let drained = shutdown.run_until_cancelled(self.drain()).await.is_some();
        if !drained {
            self.drain_or_keep().await;
        }
        drained
    }

    /// As [`drain`](Self::drain), for a collector that stops: what is on disk is kept for the next one where the bus is away.
    pub async fn drain_or_keep(&mut self) {
        self.take_all();
        while !self.outlet.is_idle() && !self.outlet.is_kept() {
            self.outlet.progress().await;
        }
        if self.outlet.is_idle() {
            self.outlet.drain().await;
        }
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
            self.lose(GapReason::Gone, Timestamp::now());
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

    fn finish(&mut self) {
        self.tell_above();
        self.finished = true;
        let end = self.batch(self.used, Content::End);
        self.outlet.push(Step::Finish(end));
    }

    fn begin_anew(&mut self) {
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

    /// Lines go out at once when nothing is on its way, and gather while something is; what is too much for memory goes to disk.
    fn flush(&mut self) {
        let gathered = self.lines.held_bytes();
        let held = gathered + self.outlet.queued_bytes();
        let is_crowded = self.outlet.hold(held);
        if self.absent.is_some() || self.lines.is_seeking() {
            return;
        }
        if self.outlet.is_idle() {
            if let Some(slice) = self.lines.take() {
                self.number(slice);
            }
        } else if self.outlet.is_spooling() {
            if gathered >= SPOOL_PIECE {
                self.take_all();
            } else if gathered > 0 {
                self.gather();
            }
        } else if held > MAX_HELD_BYTES || (is_crowded && held > MAX_HELD_CROWDED) {
            self.take_all();
            self.outlet.spill();
        }
    }

    /// What is there now goes on within [`SPOOL_AFTER`].
    pub(crate) fn gather(&mut self) {
        self.gathering.get_or_insert_with(Instant::now);
    }

    fn take_all(&mut self) {
        self.gathering = None;
        while self.absent.is_none()
            && let Some(slice) = self.lines.take()
        {
            self.number(slice);
        }
        self.tell_above();
    }

    pub(crate) fn push(&mut self, seq: u64, content: Content, end: Option<Mark>) {
        self.tell_above();
        let batch = self.batch(seq, content);
        self.outlet.push(Step::Batch(batch, end));
    }

    pub(crate) fn batch(&self, seq: u64, content: Content) -> Batch {
        Batch {
            metadata: Arc::clone(&self.metadata),
            seq,
            content,
        }
    }
}
