//! Decides what follows a read of a log: when it is read again, and when it has ended.

use std::time::Duration;

use system::clock::{Instant, since, steady};

use super::{follow::Follower, outcome::Outcome};
use crate::{instance::ContainerState, retry::Backoff, stream::TailFingerprint};

/// Delay before the first retry. A kubelet that restarts serves logs again within about a second.
const RETRY_FIRST: Duration = Duration::from_millis(50);

/// Longest delay between retries while the API or the kubelet is unavailable.
const RETRY_MAX: Duration = Duration::from_secs(5);

/// Longest delay between retries while the kubelet cannot read the log of a terminated container.
const UNREADABLE_MAX: Duration = Duration::from_secs(60);

/// The log of a terminated container that cannot be read for this long is gone: a runtime restarts
/// in less.
const GONE_AFTER: Duration = Duration::from_secs(300);

/// Fallback delay for a container that has not started; its start is a state change, which ends the
/// wait.
const NOT_STARTED_WAIT: Duration = Duration::from_secs(10);

/// Poll interval of a container without a follow slot while it writes; doubles while it does not.
const POLL_FIRST: Duration = Duration::from_secs(1);

/// Longest poll interval. A kubelet rotates every 10 s at most.
const POLL_MAX: Duration = Duration::from_secs(5);

/// What to do after a read.
pub enum NextStep {
    Shutdown,
    /// The log can no longer be read.
    EndUnread,
    /// The log was read to its end.
    Complete,
    ReadAgain,
    ReadAfter(Duration),
}

/// Delays between reads, and how the last response ended.
pub struct Retries {
    pub backoff: Backoff,
    poll_backoff: Backoff,
    unreadable_backoff: Backoff,
    /// Since when the log of a terminated container cannot be read.
    unreadable_since: Option<Instant>,
    last_tail: TailFingerprint,
}

impl Retries {
    pub fn new() -> Self {
        Self {
            backoff: Backoff::new(RETRY_FIRST, RETRY_MAX),
            poll_backoff: Backoff::new(POLL_FIRST, POLL_MAX),
            unreadable_backoff: Backoff::new(RETRY_MAX, UNREADABLE_MAX),
            unreadable_since: None,
            last_tail: TailFingerprint::default(),
        }
    }
}

impl Follower {
    /// Decides what to do after an outcome.
    pub(super) fn next_step(&mut self, outcome: Outcome, state: ContainerState, retries: &mut Retries) -> NextStep {
        let is_unreadable = matches!(outcome, Outcome::Unreadable) && state.terminated;
        let unreadable_since = is_unreadable.then(|| *retries.unreadable_since.get_or_insert_with(steady));
        if unreadable_since.is_some_and(|at| since(at) > GONE_AFTER) {
            tracing::warn!(stream = %self.stream.id(), "log of a terminated container cannot be read, ending the stream");
            return NextStep::EndUnread;
        }
        if matches!(outcome, Outcome::Ended { .. }) {
            retries.unreadable_since = None;
        }
        let backoff = &mut retries.backoff;
        let delay = match outcome {
            Outcome::Shutdown => return NextStep::Shutdown,
            Outcome::PodGone => return NextStep::EndUnread,
            Outcome::Ended { new_lines: 0, tail } if state.terminated && tail == retries.last_tail => {
                return NextStep::Complete;
            }
            Outcome::Ended { new_lines, tail } => {
                retries.last_tail = tail;
                if new_lines > 0 {
                    backoff.reset();
                }
                backoff.next_delay()
            }
            Outcome::StateChanged => {
                retries.last_tail = self.stream.tail();
                backoff.reset();
                return NextStep::ReadAgain;
            }
            Outcome::Renewed => {
                self.follows_file = false;
                return NextStep::ReadAgain;
            }
            Outcome::Resumed => return NextStep::ReadAgain,
            Outcome::Unresumed => RETRY_FIRST,
            Outcome::Unreadable if is_unreadable => retries.unreadable_backoff.next_delay(),
            Outcome::Unreadable => backoff.next_delay(),
            Outcome::Polled { new_lines } => {
                self.is_active = new_lines > 0;
                if self.is_active {
                    retries.poll_backoff.reset();
                }
                retries.poll_backoff.next_delay()
            }
            Outcome::NoFollow | Outcome::SlotRevoked => {
                self.is_active = false;
                RETRY_FIRST
            }
            Outcome::Busy(delay) => delay.max(backoff.next_delay()),
            Outcome::NotStarted => NOT_STARTED_WAIT,
            Outcome::Stalled => {
                tracing::debug!(stream = %self.stream.id(), "follow stalled, reopening it");
                backoff.next_delay()
            }
            Outcome::Refused(reason) => {
                self.refusals.warn(&self.instance, &reason);
                backoff.next_delay()
            }
            Outcome::Broken(reason) => {
                tracing::debug!(stream = %self.stream.id(), reason, "log read failed, retrying");
                backoff.next_delay()
            }
        };
        NextStep::ReadAfter(delay)
    }
}
