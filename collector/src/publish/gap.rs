//! Batches that become losses.

use std::sync::Arc;

use bus::{Batch, Content, Gap, GapReason, Timestamp};

use crate::{publish::checkpoint::Record, publish::context::Step, publish::spool::Last};

/// A batch's lines, lost.
pub fn told_lost(batch: &Batch, reason: GapReason) -> Batch {
    let (from, to) = times(batch.data());
    Batch {
        content: Content::Gap(Gap {
            lines: batch.lines(),
            reason,
            from,
            to,
        }),
        ..batch.clone()
    }
}

/// The first and the last line's timestamp.
pub fn times(data: &[u8]) -> (Option<Timestamp>, Option<Timestamp>) {
    let last = data[..data.len().saturating_sub(1)]
        .rsplit(|byte| *byte == b'\n')
        .next();
    let time = |line: &[u8]| Timestamp::split_line(line).map(|(time, _)| time);
    (time(data), last.and_then(time))
}

/// What was on disk and cannot be read back: a loss, as far as it was the stream that the record is of.
pub fn unreadable(record: &Record, last: &Last) -> Option<Step> {
    let metadata = record
        .metadata()
        .filter(|metadata| last.stream.as_ref() == Some(&metadata.stream))?;
    let seq = record.accepted.map_or(0, |accepted| accepted.seq_end);
    let end = last.read.filter(|read| read.seq_end > seq)?;
    let loss = Gap {
        lines: end.seq_end - seq,
        reason: GapReason::Spool,
        from: record.accepted.map(|accepted| accepted.anchor.timestamp()),
        to: Some(end.anchor.timestamp()),
    };
    let batch = Batch {
        metadata: Arc::new(metadata),
        seq,
        content: Content::Gap(loss),
    };
    Some(Step::Batch(batch, Some(end)))
}
