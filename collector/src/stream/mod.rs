//! One container instance's output as a stream: every line its number, every hole its loss, and the end.

pub mod expected_lines;
pub mod lines;
pub mod metadata;
mod number;
mod resume;
pub mod resume_search;
mod split;

use std::sync::Arc;

use bus::{Batch, Content, Gap, GapReason, StreamId, StreamMetadata, Timestamp};
use futures::future::OptionFuture;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::{
    anchor::Mark,
    instance::InstanceKey,
    publish::{
        checkpoint::Record,
        entry::Step,
        outbox::{Outlet, SPOOL_AFTER},
    },
};
use expected_lines::Marks;
use lines::Lines;

/// What is held of a stream in memory while the bus is slow; then it goes to disk. Four batches: one on the way, the rest gathered.
const MAX_HELD_BYTES: usize = 4 << 20;

/// What a stream may hold while all together hold too much: below it there is little to gain.
const MAX_HELD_CROWDED: usize = 256 << 10;

/// What goes to disk gathers until it is so much, or [`SPOOL_AFTER`] old: a write a line would be slow, and longer is more to lose.
const SPOOL_PIECE: usize = 256 << 10;

/// One container instance's output as a stream.
pub struct Stream {
    key: InstanceKey,
    metadata: Arc<StreamMetadata>,
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
    /// Lines that files were seen to hold, and that must come.
    marks: Marks,
    /// A response joined, or began the log, in this process: what lies before is all had.
    live: bool,
    /// Where a rotation was told last.
    rotated_at: Option<u64>,
    /// What the app printed above its limit, and was not told yet.
    above: Option<OverLimit>,
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

/// Lines above the app's limit, which are told as one once others pass, or after a while.
struct OverLimit {
    seq: u64,
    loss: Gap,
    end: Mark,
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

    /// Whether nothing was ever read of it.
    pub fn is_blank(&self) -> bool {
        self.used == 0
    }

    /// Whether nothing is held of it either.
    pub fn is_untouched(&self) -> bool {
        self.is_blank() && self.lines.held_bytes() == 0
    }

    /// The time of the last line that was read.
    pub fn last_read(&self) -> Option<Timestamp> {
        self.lines.last_read()
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

    /// Takes in a frame of the response.
    pub fn read(&mut self, frame: &[u8]) {
        let join = self.lines.push(frame);
        self.join(join);
        self.flush();
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
        let gathered = OptionFuture::from(gathered.map(sleep_until));
        tokio::select! {
            () = self.outlet.progress() => {}
            Some(()) = gathered => self.take_all(),
        }
        self.flush();
    }

    /// Goes on publishing until something else is done.
    pub async fn publish_while<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                () = self.progress() => {}
            }
        }
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

    fn finish(&mut self) {
        self.tell_above();
        self.finished = true;
        let end = self.batch(self.used, Content::End);
        self.outlet.push(Step::Finish(end));
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
    fn gather(&mut self) {
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

    fn push(&mut self, seq: u64, content: Content, end: Option<Mark>) {
        self.tell_above();
        let batch = self.batch(seq, content);
        self.outlet.push(Step::Batch(batch, end));
    }

    fn batch(&self, seq: u64, content: Content) -> Batch {
        Batch {
            metadata: Arc::clone(&self.metadata),
            seq,
            content,
        }
    }
}
