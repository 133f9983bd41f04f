//! What becomes of the oldest batches when the spool is full: one loss for each run of them.

use bus::{Content, Gap, GapReason};

use crate::publish::{entry::Step, gap::told_lost};

/// Makes losses of the lines in these steps; neighbours are told as one. What is no line stays, losses above all. Returns how many lines were lost by it.
pub fn compact(steps: Vec<Step>) -> (Vec<Step>, u64) {
    let mut kept: Vec<Step> = Vec::new();
    let mut lost = 0;
    for step in steps {
        let step = match step {
            Step::Batch(batch, end) if matches!(batch.content, Content::Lines { .. }) => {
                lost += batch.lines();
                Step::Batch(told_lost(&batch, GapReason::Spool), end)
            }
            other => other,
        };
        if let Some(last) = kept.last_mut()
            && joined(last, &step)
        {
            continue;
        }
        kept.push(step);
    }
    (kept, lost)
}

/// Lengthens a loss by the one right behind it.
fn joined(last: &mut Step, next: &Step) -> bool {
    let (Step::Batch(batch, end), Step::Batch(more, more_end)) = (last, next) else {
        return false;
    };
    let (seq, stream) = (batch.seq + batch.lines(), &batch.metadata.stream);
    let (Content::Gap(loss), Content::Gap(next)) = (&mut batch.content, &more.content) else {
        return false;
    };
    let joins = |loss: &Gap| loss.reason == GapReason::Spool && loss.lines > 0;
    if !joins(loss) || !joins(next) || more.seq != seq || more.metadata.stream != *stream {
        return false;
    }
    loss.lines += next.lines;
    loss.from = loss.from.or(next.from);
    loss.to = next.to.or(loss.to);
    *end = more_end.or(*end);
    true
}
