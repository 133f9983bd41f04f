//! Replaces spooled entries that cannot be read back.

use std::sync::Arc;

use bus::{Batch, Content, Gap, GapReason, StreamMetadata, Timestamp};

use super::SpoolEnd;
use crate::{
    anchor::ResumePoint,
    publish::{
        checkpoint::{Checkpoint, StreamStart},
        entry::OutboxEntry,
    },
};

/// Returns entries in place of those of a spool that ended at `end`: a gap of the lines that the
/// checkpoint does not confirm, and the end of the stream if it was spooled.
///
/// If the spool ended in a newer stream than the checkpoint's, nothing tells how many lines of the
/// older one it had, nor which notices the newer one began with.
pub fn replace_lost(checkpoint: &Checkpoint, end: &SpoolEnd) -> Vec<OutboxEntry> {
    let (Some(older), Some(stream)) = (checkpoint.metadata(), &end.stream) else {
        return Vec::new();
    };
    let metadata = Arc::new(StreamMetadata {
        stream: stream.clone(),
        ..older.clone()
    });
    let mut entries = Vec::new();
    let is_renewed = older.stream != *stream;
    if is_renewed {
        let last = checkpoint.last_sent();
        let from = last.map(|last| last.anchor.timestamp());
        let seq = last.map_or(0, |last| last.seq_end);
        entries.push(gap(Arc::new(older), seq, (0, GapReason::Suspected), (from, None), None));
        let start = StreamStart {
            after: None,
            may_repeat: true,
        };
        entries.push(OutboxEntry::Start(Arc::clone(&metadata), start));
        entries.push(gap(
            Arc::clone(&metadata),
            0,
            (0, GapReason::MayRepeat),
            (from, None),
            None,
        ));
    }
    let accepted = checkpoint.accepted.filter(|_| !is_renewed);
    let seq = accepted.map_or(0, |accepted| accepted.seq_end);
    if end.next_seq > seq {
        let from = accepted.map(|accepted| accepted.anchor.timestamp());
        let to = end.read.map(|read| read.anchor.timestamp());
        let lost = (end.next_seq - seq, GapReason::Spool);
        entries.push(gap(Arc::clone(&metadata), seq, lost, (from, to), end.read));
    }
    if end.finished {
        entries.push(OutboxEntry::Finish(Batch {
            metadata,
            seq: end.next_seq,
            content: Content::End,
        }));
    }
    entries
}

fn gap(
    metadata: Arc<StreamMetadata>,
    seq: u64,
    (lines, reason): (u64, GapReason),
    (from, to): (Option<Timestamp>, Option<Timestamp>),
    end: Option<ResumePoint>,
) -> OutboxEntry {
    let is_time = |time: &Timestamp| time.0 != i64::MIN;
    let gap = Gap {
        lines,
        reason,
        from: from.filter(is_time),
        to: to.filter(is_time),
    };
    let batch = Batch {
        metadata,
        seq,
        content: Content::Gap(gap),
    };
    OutboxEntry::Batch(batch, end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{anchor::AnchorState, publish::spool::tests::metadata};

    fn end_of(metadata: &StreamMetadata, next_seq: u64) -> SpoolEnd {
        SpoolEnd {
            stream: Some(metadata.stream.clone()),
            read: Some(point(next_seq)),
            finished: false,
            next_seq,
        }
    }

    fn point(seq_end: u64) -> ResumePoint {
        let anchor = AnchorState::START.anchor(b"any");
        ResumePoint { seq_end, anchor }
    }

    /// Describes entries: stream, sequence number, lines and reason of gaps.
    fn describe(entries: &[OutboxEntry]) -> Vec<String> {
        let describe = |entry: &OutboxEntry| match entry {
            OutboxEntry::Batch(batch, end) => match &batch.content {
                Content::Gap(gap) => {
                    let (reason, end) = (gap.reason.label(), end.map(|end| end.seq_end));
                    format!("{} {reason} {} {end:?}", batch.seq, gap.lines)
                }
                content => format!("{content:?}"),
            },
            OutboxEntry::Finish(batch) => format!("{} end", batch.seq),
            OutboxEntry::Start(..) => "start".to_owned(),
        };
        entries.iter().map(describe).collect()
    }

    #[test]
    fn lost_lines_become_a_gap_of_what_is_not_confirmed() {
        let metadata = metadata();
        let mut checkpoint = Checkpoint::new(&metadata);
        checkpoint.accepted = Some(point(3));
        let entries = replace_lost(&checkpoint, &end_of(&metadata, 8));
        assert_eq!(describe(&entries), ["3 spool 5 Some(8)"]);
    }

    #[test]
    fn a_lost_end_is_published() {
        let metadata = metadata();
        let mut checkpoint = Checkpoint::new(&metadata);
        checkpoint.accepted = Some(point(8));
        let end = SpoolEnd {
            finished: true,
            ..end_of(&metadata, 8)
        };
        assert_eq!(describe(&replace_lost(&checkpoint, &end)), ["8 end"]);
    }

    #[test]
    fn a_lost_start_of_a_stream_is_made_again() {
        let older = metadata();
        let mut checkpoint = Checkpoint::new(&older);
        checkpoint.accepted = Some(point(3));
        let epoch = bus::Epoch {
            millis: older.stream.epoch().millis + 1,
            random: 0,
        };
        let newer = StreamMetadata {
            stream: bus::StreamId::new("uid", "c", "id", epoch).unwrap(),
            ..StreamMetadata::clone(&older)
        };
        let entries = replace_lost(&checkpoint, &end_of(&newer, 8));
        let expected = [
            "3 suspected 0 None",
            "start",
            "0 may_repeat 0 None",
            "0 spool 8 Some(8)",
        ];
        assert_eq!(describe(&entries), expected);
    }
}
