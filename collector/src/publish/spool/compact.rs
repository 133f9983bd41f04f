//! Replaces evicted batches by gaps, one per run of adjacent batches.

use bus::{Content, Gap, GapReason};

use crate::publish::{entry::OutboxEntry, gap::to_gap};

/// Replaces lines by gaps and merges adjacent ones; other entries are kept. Returns the number of
/// lines lost.
pub fn compact(entries: Vec<OutboxEntry>) -> (Vec<OutboxEntry>, u64) {
    let mut compacted: Vec<OutboxEntry> = Vec::new();
    let mut lost = 0;
    for entry in entries {
        let entry = match entry {
            OutboxEntry::Batch(batch, end) if matches!(batch.content, Content::Lines { .. }) => {
                lost += batch.lines();
                OutboxEntry::Batch(to_gap(&batch, GapReason::Spool), end)
            }
            other => other,
        };
        if let Some(last) = compacted.last_mut()
            && merge(last, &entry)
        {
            continue;
        }
        compacted.push(entry);
    }
    (compacted, lost)
}

/// Extends a gap by the one that follows it.
fn merge(last: &mut OutboxEntry, next: &OutboxEntry) -> bool {
    let (OutboxEntry::Batch(batch, end), OutboxEntry::Batch(more, more_end)) = (last, next) else {
        return false;
    };
    let (seq, stream) = (batch.seq + batch.lines(), &batch.metadata.stream);
    let (Content::Gap(gap), Content::Gap(next)) = (&mut batch.content, &more.content) else {
        return false;
    };
    let is_mergeable = |gap: &Gap| gap.reason == GapReason::Spool && gap.lines > 0;
    if !is_mergeable(gap) || !is_mergeable(next) || more.seq != seq || more.metadata.stream != *stream {
        return false;
    }
    gap.lines += next.lines;
    gap.from = gap.from.or(next.from);
    gap.to = next.to.or(gap.to);
    *end = more_end.or(*end);
    true
}
