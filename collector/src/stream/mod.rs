//! Turns one container instance's output into a numbered stream, records gaps, and passes it to
//! `publish`; depends on nothing in `api`, `files` or `supervisor`.

mod doubt;
pub mod expected_files;
pub mod lines;
pub mod log_end;
pub mod metadata;
mod number;
mod opening;
pub mod resume;
pub mod resume_search;
mod split;

use std::sync::Arc;

use bus::{Batch, Content, Gap, GapReason, StreamId, StreamMetadata, Timestamp};
use futures::future::OptionFuture;
use system::clock::{Instant, steady};
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;

use crate::{
    anchor::ResumePoint,
    instance::InstanceKey,
    publish::{
        checkpoint::Checkpoint,
        entry::OutboxEntry,
        file_checkpoint::LineCount,
        outbox::{Outbox, SPOOL_AFTER},
    },
};
use doubt::Doubt;
use expected_files::ExpectedFiles;
use lines::Lines;
use log_end::{End, LogEnd};
use opening::Opening;
use resume_search::Unmatched;

/// Upper bound for a stream's buffered data while the bus is slow; more is spooled. Four batches:
/// one in flight, the rest waiting.
const MAX_BUFFERED_BYTES: usize = 4 << 20;

/// The same while all streams together exceed their limit; smaller buffers would free little.
const MAX_BUFFERED_CROWDED: usize = 256 << 10;

/// Data for the spool is collected up to this size, or for [`SPOOL_AFTER`]: a write per line would
/// be slow, and waiting longer risks more.
const SPOOL_WRITE_BYTES: usize = 256 << 10;

/// One container instance's output as a stream.
pub struct Stream {
    key: InstanceKey,
    metadata: Arc<StreamMetadata>,
    lines: Lines,
    outbox: Outbox,
    next_seq: u64,
    /// Sequence numbers below this may already be used.
    reserved_seq: u64,
    /// The last line that was read and numbered.
    confirmed: Option<ResumePoint>,
    /// How the log ends, for the task of the next instance.
    log_end: LogEnd,
    /// The farthest line that may have been sent before a restart.
    unconfirmed: Option<ResumePoint>,
    /// Lines numbered since the response started.
    new_lines: u64,
    /// The response does not contain the resume point; acted on once the instance is verified.
    unmatched: Option<Unmatched>,
    /// Files seen by probes that must still arrive.
    expected_files: ExpectedFiles,
    /// What nothing proves yet.
    doubt: Doubt,
    /// Reading goes on at the line after the last one that was read.
    is_position_proved: bool,
    /// Positions in earlier streams at which this one starts.
    continues: Vec<LineCount>,
    /// A response was resumed, or read from the start of the log, by this process: everything
    /// before is complete.
    has_resumed: bool,
    /// The current file is read from its start, because it does not contain the last line read.
    is_at_file_start: bool,
    /// The file of which lines were read last, if it is known.
    read_file: Option<u64>,
    /// Lines from before the first one may be missing.
    suspects_start: bool,
    /// What shows whether the log was first opened late.
    opening: Option<Opening>,
    /// The sequence number at which skipped files were last recorded.
    jump_recorded_at: Option<u64>,
    /// Lines dropped by the rate limit and not yet recorded.
    over_limit: Option<OverLimit>,
    /// Since when data for the spool or a gap is waiting.
    flush_since: Option<Instant>,
    /// The end of the stream was passed to the outbox.
    finished: bool,
}

/// Lines dropped by the rate limit. Recorded as one gap when others pass, or after a while.
struct OverLimit {
    seq: u64,
    gap: Gap,
    end: ResumePoint,
}

/// How a response ended: two equal ones in a row mean that the log is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct TailFingerprint(usize, u64);

impl Stream {
    /// Resumes the stream at its checkpoint. A new stream first records the gap of unseen
    /// instances.
    pub fn new(key: InstanceKey, metadata: StreamMetadata, checkpoint: &Checkpoint, outbox: Outbox) -> Self {
        let seq_end = |point: Option<ResumePoint>| point.map_or(0, |point| point.seq_end);
        let spool_end = outbox.spool_end();
        // Spooled data was read: reading resumes after it, in the stream with which it ends.
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
            log_end: LogEnd::default(),
            unconfirmed: sent,
            new_lines: 0,
            unmatched: None,
            expected_files: ExpectedFiles::default(),
            doubt: match checkpoint {
                Checkpoint { doubtful: true, .. } => Doubt::Checkpoint,
                Checkpoint { outdated: true, .. } if confirmed.or(sent).is_some() => Doubt::Position,
                _ => Doubt::None,
            },
            // What is in the spool was read by a process that knew its position.
            is_position_proved: false,
            continues: if is_renewed {
                Vec::new()
            } else {
                checkpoint.continues.clone()
            },
            has_resumed: false,
            is_at_file_start: false,
            read_file: None,
            suspects_start: false,
            opening: None,
            jump_recorded_at: None,
            over_limit: None,
            flush_since: None,
            finished: spool_end.finished,
        };
        if let (Some(unseen), None, None) = (checkpoint.unseen, checkpoint.accepted, spool_end.stream) {
            let gap = Gap {
                lines: 0,
                reason: GapReason::Suspected,
                from: unseen.from.map(Timestamp),
                to: Some(Timestamp(unseen.to)),
            };
            stream.push_gap(0, gap);
            stream.jump_recorded_at = Some(0);
        }
        stream
    }

    /// Returns the current stream id.
    pub fn id(&self) -> &StreamId {
        &self.metadata.stream
    }

    /// Returns the metadata shared by the batches.
    pub fn metadata(&self) -> &StreamMetadata {
        &self.metadata
    }

    /// Returns the container instance.
    pub fn key(&self) -> &InstanceKey {
        &self.key
    }

    /// Reports the lines that are read to the task of the next instance.
    pub fn share_end(&mut self, log_end: LogEnd) {
        self.log_end = log_end;
    }

    /// Reports that the newest file of the log has no line.
    pub fn share_empty_file(&self) {
        self.log_end.set(End::Empty);
    }

    /// Returns whether no line was ever read.
    pub fn has_no_lines(&self) -> bool {
        self.reserved_seq == 0 && self.confirmed.is_none()
    }

    /// Returns whether no line was read and nothing is buffered.
    pub fn is_empty(&self) -> bool {
        self.has_no_lines() && self.lines.buffered_bytes() == 0
    }

    /// Returns the time of the last line read.
    pub fn last_read(&self) -> Option<Timestamp> {
        self.lines.last_read()
    }

    /// Returns the sequence number of the next line to be read.
    pub fn next_unread_seq(&self) -> u64 {
        self.next_seq + self.lines.buffered_lines()
    }

    /// Returns the number of lines read since a position, by its line count; `None` if the count is
    /// of another stream.
    pub fn lines_since(&self, count: &LineCount) -> Option<u64> {
        let next_seq = self.next_unread_seq();
        if count.is_of(self.id()) {
            return next_seq.checked_sub(count.seq);
        }
        if self.has_no_lines() && count.seq == 0 {
            return Some(0);
        }
        let base = self.continues.iter().find(|base| base.is_of_same(count))?;
        (base.seq + next_seq).checked_sub(count.seq)
    }

    /// Returns the sequence number up to which the bus or the spool has the stream. `None`: a
    /// previous stream of the instance is not confirmed yet.
    pub fn accepted(&self) -> Option<u64> {
        self.outbox.accepted(self.id())
    }

    /// Writes the checkpoint.
    pub fn save(&self) {
        self.outbox.save();
    }

    /// Adds a frame of the response.
    pub fn read(&mut self, frame: &[u8]) {
        let result = self.lines.push(frame);
        self.apply_search_result(result);
        self.flush();
    }

    /// Returns whether more can be read: always, unless the spool cannot be written while the bus
    /// is unavailable.
    pub fn has_room(&self) -> bool {
        self.outbox.queued_bytes() < MAX_BUFFERED_BYTES
    }

    /// Returns whether the end of the stream was passed to the outbox.
    pub fn is_finished(&self) -> bool {
        self.finished
    }

    /// Returns after progress in publishing; never while idle.
    ///
    /// *Cancel safety*: no data is lost.
    pub async fn progress(&mut self) {
        let gathered = self.flush_since.map(|since| since + SPOOL_AFTER);
        let gathered = OptionFuture::from(gathered.map(sleep_until));
        tokio::select! {
            () = self.outbox.progress() => {}
            Some(()) = gathered => self.flush_all(),
        }
        self.flush();
    }

    /// Publishes while `work` runs.
    pub async fn publish_while<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                () = self.progress() => {}
            }
        }
    }

    /// Publishes all complete lines and writes the checkpoint.
    ///
    /// *Cancel safety*: unconfirmed data is kept.
    pub async fn drain(&mut self) {
        self.flush_all();
        self.outbox.drain().await;
    }

    /// Like [`drain`](Self::drain) until shutdown, then like
    /// [`drain_or_keep`](Self::drain_or_keep). Returns whether everything was published.
    pub async fn drain_until(&mut self, shutdown: &CancellationToken) -> bool {
        let drained = shutdown.run_until_cancelled(self.drain()).await.is_some();
        if !drained {
            self.drain_or_keep().await;
        }
        drained
    }

    /// Like [`drain`](Self::drain), but leaves spooled data for the next start if the bus is
    /// unavailable.
    pub async fn drain_or_keep(&mut self) {
        self.flush_all();
        while !self.outbox.is_idle() && !self.outbox.is_fully_spooled() {
            self.outbox.progress().await;
        }
        if self.outbox.is_idle() {
            self.outbox.drain().await;
        }
    }

    /// Ends the stream: the log was read to its end and its container has terminated.
    pub fn complete(&mut self) {
        self.lines.finish_rest();
        self.flush_all();
        if self.suspects_start && self.has_no_lines() {
            self.record_gap(GapReason::Suspected, Some(Timestamp::now()));
        }
        self.finish();
    }

    /// Ends the stream of a log that can no longer be read, with a gap for this reason.
    pub fn end_unread(&mut self, reason: Option<GapReason>) {
        self.lines.drop_rest();
        self.flush_all();
        if let Some(reason) = reason {
            self.record_gap(reason, Some(Timestamp::now()));
        }
        self.finish();
    }

    fn finish(&mut self) {
        self.flush_over_limit();
        self.finished = true;
        let end = self.batch(self.reserved_seq, Content::End);
        self.outbox.push(OutboxEntry::Finish(end));
    }

    /// Publishes at once if nothing is in flight, otherwise collects; data that exceeds the memory
    /// limit is spooled.
    fn flush(&mut self) {
        let gathered = self.lines.buffered_bytes();
        let buffered = gathered + self.outbox.queued_bytes();
        let is_crowded = self.outbox.report_buffered(buffered);
        if self.unmatched.is_some() || self.lines.is_searching() {
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

    /// Bounds the wait of collected data by [`SPOOL_AFTER`].
    fn schedule_flush(&mut self) {
        self.flush_since.get_or_insert_with(steady);
    }

    fn flush_all(&mut self) {
        self.flush_since = None;
        while self.unmatched.is_none()
            && let Some(slice) = self.lines.next_slice()
        {
            self.number(slice);
        }
        self.flush_over_limit();
    }

    fn push(&mut self, seq: u64, content: Content, end: Option<ResumePoint>) {
        self.flush_over_limit();
        let batch = self.batch(seq, content);
        self.outbox.push(OutboxEntry::Batch(batch, end));
    }

    fn batch(&self, seq: u64, content: Content) -> Batch {
        Batch {
            metadata: Arc::clone(&self.metadata),
            seq,
            content,
        }
    }
}
