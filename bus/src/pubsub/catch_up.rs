//! How a reader knows that it has seen all that was there: it publishes a marker of its own, and waits for it to come back (rule 13).

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{AppName, Batch, BusError, Content, Epoch, PublishTime, StreamId, StreamMetadata};

/// With nothing coming for so long, the marker will not come either: what there is is stated as cut.
const SILENCE: Duration = Duration::from_secs(5);

/// The same, however much comes.
const LIMIT: Duration = Duration::from_secs(120);

/// Where a read-back stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// To wait on.
    Wait,
    /// To publish the next marker.
    Mark,
    /// All that was published before it began has come.
    Done,
    /// It cannot be known whether all has come.
    Cut,
}

/// A read-back under way. Knows no bus: it is told what comes, and says what is to be done.
#[derive(Debug)]
pub(super) struct CatchUp {
    nonce: String,
    /// Markers published.
    round: u32,
    /// When the marker before the one that is awaited was published, by the bus's clock.
    before: Option<PublishTime>,
    /// Something older came since that one.
    disturbed: bool,
    began: Instant,
    heard: Instant,
}

impl CatchUp {
    /// Begins now; the first marker is to be published.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            nonce: format!("{:016x}", rand::random::<u64>()),
            round: 0,
            before: None,
            disturbed: false,
            began: now,
            heard: now,
        }
    }

    /// The next marker's text.
    pub(super) fn next_marker(&mut self, now: Instant) -> String {
        self.round += 1;
        self.heard = now;
        self.marker()
    }

    fn marker(&self) -> String {
        format!("{}.{}", self.nonce, self.round)
    }

    /// A batch came.
    pub(super) fn saw_batch(&mut self, published: PublishTime, now: Instant) {
        self.heard = now;
        self.disturbed |= self.before.is_some_and(|before| published < before);
    }

    /// A marker came, anybody's.
    pub(super) fn saw_marker(&mut self, marker: &str, published: PublishTime) -> Step {
        if marker != self.marker() {
            return Step::Wait;
        }
        if self.before.is_some() && !self.disturbed {
            return Step::Done;
        }
        self.before = Some(published);
        self.disturbed = false;
        Step::Mark
    }

    /// When [`overdue`](Self::overdue) is to be asked.
    pub(super) fn deadline(&self) -> Instant {
        (self.heard + SILENCE).min(self.began + LIMIT)
    }

    /// What a passed deadline means.
    pub(super) fn overdue(&self, now: Instant) -> Step {
        if now < self.deadline() { Step::Wait } else { Step::Cut }
    }
}

/// A marker as a batch: a stream of its own, which everyone skips.
pub(super) fn batch(app: &AppName, text: String) -> Result<Batch, BusError> {
    let stream = StreamId::new("marker", "-", "-", Epoch::new());
    let stream = stream.map_err(|error| BusError::Refused(error.to_string()))?;
    Ok(Batch {
        metadata: Arc::new(StreamMetadata::tributary(app.clone(), stream, "")),
        seq: 0,
        content: Content::Marker(text),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin() -> (CatchUp, Instant, String) {
        let now = Instant::now();
        let mut catch_up = CatchUp::new(now);
        let first = catch_up.next_marker(now);
        (catch_up, now, first)
    }

    #[test]
    fn all_has_come_when_a_second_marker_brought_nothing_older_than_the_first() {
        let (mut catch_up, now, first) = begin();
        catch_up.saw_batch(PublishTime(50), now);
        assert_eq!(catch_up.saw_marker(&first, PublishTime(100)), Step::Mark);
        let second = catch_up.next_marker(now);
        catch_up.saw_batch(PublishTime(120), now);
        assert_eq!(catch_up.saw_marker(&second, PublishTime(130)), Step::Done);
    }

    #[test]
    fn a_marker_that_overtook_what_is_older_is_not_believed() {
        let (mut catch_up, now, first) = begin();
        assert_eq!(catch_up.saw_marker(&first, PublishTime(100)), Step::Mark);
        let second = catch_up.next_marker(now);
        catch_up.saw_batch(PublishTime(40), now);
        assert_eq!(catch_up.saw_marker(&second, PublishTime(130)), Step::Mark);
        let third = catch_up.next_marker(now);
        catch_up.saw_batch(PublishTime(140), now);
        assert_eq!(catch_up.saw_marker(&third, PublishTime(150)), Step::Done);
    }

    #[test]
    fn others_markers_and_repeats_of_ones_own_say_nothing() {
        let (mut catch_up, now, first) = begin();
        assert_eq!(catch_up.saw_marker("another's", PublishTime(90)), Step::Wait);
        assert_eq!(catch_up.saw_marker(&first, PublishTime(100)), Step::Mark);
        catch_up.next_marker(now);
        assert_eq!(catch_up.saw_marker(&first, PublishTime(100)), Step::Wait);
    }

    #[test]
    fn a_marker_that_never_comes_is_waited_for_as_long_as_something_comes_and_not_for_ever() {
        let (mut catch_up, now, _) = begin();
        assert_eq!(catch_up.overdue(now + SILENCE / 2), Step::Wait);
        assert_eq!(catch_up.overdue(now + SILENCE), Step::Cut);
        catch_up.saw_batch(PublishTime(1), now + SILENCE / 2);
        assert_eq!(catch_up.overdue(now + SILENCE), Step::Wait);
        catch_up.saw_batch(PublishTime(1), now + LIMIT);
        assert_eq!(catch_up.overdue(now + LIMIT), Step::Cut);
    }
}
