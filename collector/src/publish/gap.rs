//! Turns batches that cannot be published into gaps.

use bus::{Batch, Content, Gap, GapReason, Timestamp};

/// Replaces a batch by a gap that covers its lines.
pub fn to_gap(batch: &Batch, reason: GapReason) -> Batch {
    let (from, to) = time_range(batch.data());
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

/// Returns the timestamps of the first and the last line.
pub fn time_range(data: &[u8]) -> (Option<Timestamp>, Option<Timestamp>) {
    let last = data[..data.len().saturating_sub(1)]
        .rsplit(|byte| *byte == b'\n')
        .next();
    let time = |line: &[u8]| Timestamp::split_line(line).map(|(time, _)| time);
    (time(data), last.and_then(time))
}
