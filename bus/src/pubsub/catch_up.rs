//! Detects that a reader has received the stored history: it publishes a marker and waits for its
//! delivery (delivery rule 13).

use std::{sync::Arc, time::Duration};

use system::clock::Instant;

use crate::{AppName, Batch, BusError, Content, Epoch, PublishTime, StreamId, StreamMetadata};

/// If no message arrives for this long, the marker is given up and the history reported as cut.
const MAX_IDLE: Duration = Duration::from_secs(5);

/// The marker is given up after this long even while messages arrive.
const MAX_DURATION: Duration = Duration::from_secs(120);

/// The next step of catching up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CatchUpStep {
    /// Wait for messages.
    Wait,
    /// Publish the next marker.
    PublishMarker,
    /// All messages published before the start have arrived.
    Done,
    /// The marker did not arrive: messages may be missing.
    TimedOut,
}

/// State of catching up, without I/O: it is fed with arriving messages and returns the next step.
#[derive(Debug)]
pub(super) struct CatchUp {
    nonce: String,
    /// Number of markers published.
    round: u32,
    /// Publish time of the previous marker.
    previous: Option<PublishTime>,
    /// A message older than the previous marker arrived after it.
    reordered: bool,
    started: Instant,
    last_arrival: Instant,
}

impl CatchUp {
    /// Starts at `now`; the first marker is to be published.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            nonce: format!("{:016x}", system::random::random::<u64>()),
            round: 0,
            previous: None,
            reordered: false,
            started: now,
            last_arrival: now,
        }
    }

    /// Returns the text of the next marker.
    pub(super) fn next_marker(&mut self, now: Instant) -> String {
        self.round += 1;
        self.last_arrival = now;
        self.marker()
    }

    fn marker(&self) -> String {
        format!("{}.{}", self.nonce, self.round)
    }

    /// Records the arrival of a batch.
    pub(super) fn record_batch(&mut self, published: PublishTime, now: Instant) {
        self.last_arrival = now;
        self.reordered |= self.previous.is_some_and(|previous| published < previous);
    }

    /// Records the arrival of a marker of any reader.
    pub(super) fn record_marker(&mut self, marker: &str, published: PublishTime) -> CatchUpStep {
        if marker != self.marker() {
            return CatchUpStep::Wait;
        }
        if self.previous.is_some() && !self.reordered {
            return CatchUpStep::Done;
        }
        self.previous = Some(published);
        self.reordered = false;
        CatchUpStep::PublishMarker
    }

    /// Returns when to call [`check_deadline`](Self::check_deadline).
    pub(super) fn deadline(&self) -> Instant {
        (self.last_arrival + MAX_IDLE).min(self.started + MAX_DURATION)
    }

    /// Returns the step after a wait for the deadline.
    pub(super) fn check_deadline(&self, now: Instant) -> CatchUpStep {
        if now < self.deadline() {
            CatchUpStep::Wait
        } else {
            CatchUpStep::TimedOut
        }
    }
}

/// Creates a marker: a batch of a stream that all readers skip.
pub(super) fn marker_batch(app: &AppName, text: String) -> Result<Batch, BusError> {
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

    fn start() -> (CatchUp, Instant, String) {
        let now = system::clock::steady();
        let mut catch_up = CatchUp::new(now);
        let first = catch_up.next_marker(now);
        (catch_up, now, first)
    }

    #[test]
    fn history_is_complete_when_nothing_older_arrives_between_two_markers() {
        let (mut catch_up, now, first) = start();
        catch_up.record_batch(PublishTime(50), now);
        assert_eq!(
            catch_up.record_marker(&first, PublishTime(100)),
            CatchUpStep::PublishMarker
        );
        let second = catch_up.next_marker(now);
        catch_up.record_batch(PublishTime(120), now);
        assert_eq!(catch_up.record_marker(&second, PublishTime(130)), CatchUpStep::Done);
    }

    #[test]
    fn a_marker_that_overtook_older_messages_is_repeated() {
        let (mut catch_up, now, first) = start();
        assert_eq!(
            catch_up.record_marker(&first, PublishTime(100)),
            CatchUpStep::PublishMarker
        );
        let second = catch_up.next_marker(now);
        catch_up.record_batch(PublishTime(40), now);
        assert_eq!(
            catch_up.record_marker(&second, PublishTime(130)),
            CatchUpStep::PublishMarker
        );
        let third = catch_up.next_marker(now);
        catch_up.record_batch(PublishTime(140), now);
        assert_eq!(catch_up.record_marker(&third, PublishTime(150)), CatchUpStep::Done);
    }

    #[test]
    fn foreign_and_repeated_markers_are_ignored() {
        let (mut catch_up, now, first) = start();
        assert_eq!(catch_up.record_marker("another's", PublishTime(90)), CatchUpStep::Wait);
        assert_eq!(
            catch_up.record_marker(&first, PublishTime(100)),
            CatchUpStep::PublishMarker
        );
        catch_up.next_marker(now);
        assert_eq!(catch_up.record_marker(&first, PublishTime(100)), CatchUpStep::Wait);
    }

    #[test]
    fn a_missing_marker_times_out_when_idle_or_after_the_maximum_duration() {
        let (mut catch_up, now, _) = start();
        assert_eq!(catch_up.check_deadline(now + MAX_IDLE / 2), CatchUpStep::Wait);
        assert_eq!(catch_up.check_deadline(now + MAX_IDLE), CatchUpStep::TimedOut);
        catch_up.record_batch(PublishTime(1), now + MAX_IDLE / 2);
        assert_eq!(catch_up.check_deadline(now + MAX_IDLE), CatchUpStep::Wait);
        catch_up.record_batch(PublishTime(1), now + MAX_DURATION);
        assert_eq!(catch_up.check_deadline(now + MAX_DURATION), CatchUpStep::TimedOut);
    }
}
