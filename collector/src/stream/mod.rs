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
    anchor::ResumePoint,
    instance::InstanceKey,
    publish::{
        checkpoint::Checkpoint,
        entry::OutboxEntry,
        outbox::{Outbox, SPOOL_AFTER},
    },
};
use expected_lines::ExpectedLines;
use lines::Lines;

/// What is held of a stream in memory while the bus is slow; then it goes to disk. Four batches: one on the way, the rest gathered.
const MAX_BUFFERED_BYTES: usize = 4 << 20;

/// What a stream may hold while all together hold too much: below it there is little to gain.
const MAX_BUFFERED_CROWDED: usize = 256 << 10;

/// What goes to disk gathers until it is so much, or [`SPOOL_AFTER`] old: a write a line would be slow, and longer is more to lose.
const SPOOL_WRITE_BYTES: usize = 256 << 10;

/// One container instance's output as a stream.
pub struct Stream {
    key: InstanceKey,
    metadata: Arc<StreamMetadata>,
    lines: Lines,
    outbox: Outbox,
    next_seq: u64,
    /// Seqs below may name lines already.
    reserved_seq: u64,
    /// The last line that was read and numbered.
    confirmed: Option<ResumePoint>,
    /// The farthest line that may have been sent before a restart.
    unconfirmed: Option<ResumePoint>,
    /// Lines numbered since the response began.
    new_lines: u64,
    /// The response does not join: to be believed once it is known to be this instance's.
    mismatch: Option<Mismatch>,
    /// Lines that files were seen to hold, and that must come.
    expected_lines: ExpectedLines,
    /// A response joined, or began the log, in this process: what lies before is all had.
    has_resumed: bool,
    /// Where a rotation was told last.
    rotation_recorded_at: Option<u64>,
    /// What the app printed above its limit, and was not told yet.
    over_limit: Option<OverLimit>,
    /// Since when something gathers that is not to wait for long: lines for the disk, or a loss.
    flush_since: Option<Instant>,
    /// Its end is on its way: nothing is left to be read.
    finished: bool,
}

/// A response that does not contain the line to go on from; where its lines begin.
#[derive(Clone, Copy, Debug)]
struct Mismatch {
    first: Option<Timestamp>,
}

/// Lines above the app's limit, which are told as one once others pass, or after a while.
struct OverLimit {
    seq: u64,
    gap: Gap,
    end: ResumePoint,
}

/// How a response ended: alike twice, and it has all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct TailFingerprint(usize, u64);

impl Stream {
    /// Goes on where the record stands; one that is still to begin tells first what came before it and was not seen.
    pub fn new(key: InstanceKey, metadata: StreamMetadata, checkpoint: &Checkpoint, outbox: Outbox) -> Self {
        let seq_end = |point: Option<ResumePoint>| point.map_or(0, |point| point.seq_end);
        let spool_end = outbox.spool_end();
        // What is on disk is had: reading goes on behind it, in the stream that it ends with.
        let is_renewed = spool_end
            .stream
            .as_ref()
            .is_some_and(|stream| *stream != metadata.stream);
        let (accepted, sent) = if is_renewed {
            (None, None)
        } else {
            (checkpoint.accepted, checkpoint.sent)
        };
        let confirmed = spool_end.read.or(accepted);
        let mut stream = Self {
            key,
            metadata: Arc::new(StreamMetadata {
                stream: spool_end.stream.clone().unwrap_or_else(|| metadata.stream.clone()),
                ..metadata
            }),
            lines: Lines::default(),
            outbox,
            next_seq: seq_end(confirmed),
            reserved_seq: seq_end(confirmed).max(seq_end(sent)),
            confirmed,
            unconfirmed: sent,
            new_lines: 0,
            mismatch: None,
            expected_lines: ExpectedLines::default(),
            has_resumed: false,
            rotation_recorded_at: None,
            over_limit: None,
            flush_since: None,
            finished: spool_end.finished,
        };
        if let (Some(unseen), None, None) = (checkpoint.unseen, checkpoint.accepted, spool_end.stream) {
            let gap = Gap {
                lines: 0,
                reason: GapReason::Gone,
                from: unseen.from.map(Timestamp),
                to: Some(Timestamp(unseen.to)),
            };
            stream.push_gap(0, gap);
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
    pub fn has_no_lines(&self) -> bool {
        self.reserved_seq == 0
    }

    /// Whether nothing is held of it either.
    pub fn is_empty(&self) -> bool {
        self.has_no_lines() && self.lines.buffered_bytes() == 0
    }

    /// The time of the last line that was read.
    pub fn last_read(&self) -> Option<Timestamp> {
        self.lines.last_read()
    }

    /// The seq that the next line to be read takes.
    pub fn next_unread_seq(&self) -> u64 {
        self.next_seq + self.lines.buffered_lines()
    }

    /// The seq up to which the bus has it. `None`: it was begun anew, and the bus does not have all of the one before.
    pub fn accepted(&self) -> Option<u64> {
        self.outbox.accepted(self.id())
    }

    /// Writes how far the bus has it.
    pub fn save(&self) {
        self.outbox.save();
    }

    /// Takes in a frame of the response.
    pub fn read(&mut self, frame: &[u8]) {
        let apply_search_result = self.lines.push(frame);
        self.apply_search_result(apply_search_result);
        self.flush();
    }

    /// Whether there is room to read on: always, unless the disk refuses what the bus does not take.
    pub fn has_room(&self) -> bool {
        self.outbox.queued_bytes() < MAX_BUFFERED_BYTES
    }

    /// Whether its end is on its way: nothing is left to be read.
    pub fn is_finished(&self) -> bool {
        self.finished
    }

    /// Returns when something happened to what is on its way. Never while idle.
    ///
    /// *Cancel safety*: nothing is lost.
    pub async fn progress(&mut self) {
        let gathered = self.flush_since.map(|since| since + SPOOL_AFTER);
        let gathered = OptionFuture::from(gathered.map(sleep_until));
        tokio::select! {
            () = self.outbox.progress() => {}
            Some(()) = gathered => self.flush_all(),
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
        self.flush_all();
        self.outbox.drain().await;
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
        self.flush_all();
        while !self.outbox.is_idle() && !self.outbox.is_fully_spooled() {
            self.outbox.progress().await;
        }
        if self.outbox.is_idle() {
            self.outbox.drain().await;
        }
    }

    /// The log has been read to its end, and its container has terminated.
    pub fn complete(&mut self) {
        self.lines.finish_rest();
        self.flush_all();
        self.finish();
    }

    /// The rest of the log can no longer be read: ends, and tells so where there was a rest to be expected.
    pub fn end_unread(&mut self, expected: bool) {
        self.lines.drop_rest();
        self.flush_all();
        if expected {
            self.record_gap(GapReason::Gone, Timestamp::now());
        }
        self.finish();
    }

    fn finish(&mut self) {
        self.flush_over_limit();
        self.finished = true;
        let next_unread_seq = self.batch(self.reserved_seq, Content::End);
        self.outbox.push(OutboxEntry::Finish(next_unread_seq));
    }

    /// Lines go out at once when nothing is on its way, and gather while something is; what is too much for memory goes to disk.
    fn flush(&mut self) {
        let gathered = self.lines.buffered_bytes();
        let buffered = gathered + self.outbox.queued_bytes();
        let is_crowded = self.outbox.report_buffered(buffered);
        if self.mismatch.is_some() || self.lines.is_searching() {
            return;
        }
        if self.outbox.is_idle() {
            if let Some(slice) = self.lines.next_slice() {
                self.number(slice);
            }
        } else if self.outbox.is_spooling() {
            if gathered >= SPOOL_WRITE_BYTES {
                self.flush_all();
            } else if gathered > 0 {
                self.schedule_flush();
            }
        } else if buffered > MAX_BUFFERED_BYTES || (is_crowded && buffered > MAX_BUFFERED_CROWDED) {
            self.flush_all();
            self.outbox.spill();
        }
    }

    /// What is there now goes on within [`SPOOL_AFTER`].
    fn schedule_flush(&mut self) {
        self.flush_since.get_or_insert_with(Instant::now);
    }

    fn flush_all(&mut self) {
        self.flush_since = None;
        while self.mismatch.is_none()
            && let Some(slice) = self.lines.next_slice()
        {
            self.number(slice);
        }
        self.flush_over_limit();
    }

    fn push(&mut self, seq: u64, content: Content, next_unread_seq: Option<ResumePoint>) {
        self.flush_over_limit();
        let batch = self.batch(seq, content);
        self.outbox.push(OutboxEntry::Batch(batch, next_unread_seq));
    }

    fn batch(&self, seq: u64, content: Content) -> Batch {
        Batch {
            metadata: Arc::clone(&self.metadata),
            seq,
            content,
        }
    }
}
