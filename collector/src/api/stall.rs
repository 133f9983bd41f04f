//! Detects a stalled follow: one that is open but delivers nothing, for example because its file
//! was rotated away.

use std::time::Duration;

use system::clock::{Instant, steady};
use tokio::time::timeout;

use crate::{
    anchor::Anchor,
    api::request::{LogRequest, LogResponse},
    instance::Instance,
    retry::Backoff,
    stream::{
        lines::Lines,
        resume_search::{Extent, ResumeSearch, SearchResult, Unmatched},
    },
};

/// Time without data before the first probe; doubles, because most idle containers have nothing to
/// write.
const FIRST_PROBE: Duration = Duration::from_secs(30);

/// The same for a container with high volume, whose file may be rotated twice within
/// [`FIRST_PROBE`].
const FIRST_PROBE_HIGH_VOLUME: Duration = Duration::from_millis(700);

/// After a quick probe without result, the next quick probe waits this long: output in bursts has
/// pauses.
const QUICK_PROBE_PAUSE: Duration = Duration::from_secs(3);

/// High volume: this many bytes within a second fill the smallest rotated file (1 MiB) within
/// [`FIRST_PROBE`].
const HIGH_VOLUME_BYTES: usize = 32 << 10;

/// Longest time between probes: a node with 100 idle containers sends about one request per second.
const MAX_PROBE_DELAY: Duration = Duration::from_secs(120);

/// Time that a line seen by the probe has to arrive on the follow.
const GRACE: Duration = Duration::from_secs(2);

/// The same for a container with high volume: reopening a follow costs less than losing a file.
const GRACE_HIGH_VOLUME: Duration = Duration::from_millis(300);

/// Time limit for a frame of a probe.
const FRAME_TIMEOUT: Duration = Duration::from_secs(10);

/// What to do when the deadline passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StallAction {
    /// Check whether there are undelivered lines.
    Probe,
    /// Open another follow: there are undelivered lines.
    Replace,
}

/// Tracks how long a follow has delivered nothing.
#[derive(Debug)]
pub struct StallDetector {
    backoff: Backoff,
    deadline: Instant,
    has_missed_lines: bool,
    /// Start of the second in which `bytes` are counted.
    window_start: Instant,
    bytes: usize,
    /// High volume in the current second or the one before.
    is_high_volume: bool,
    /// No quick probe before this time.
    quick_probe_after: Instant,
}

impl StallDetector {
    /// Starts tracking now.
    pub fn new() -> Self {
        let mut backoff = Backoff::new(FIRST_PROBE, MAX_PROBE_DELAY);
        let now = steady();
        Self {
            deadline: now + backoff.next_delay(),
            backoff,
            has_missed_lines: false,
            window_start: now,
            bytes: 0,
            is_high_volume: false,
            quick_probe_after: now,
        }
    }

    /// Accounts for received bytes.
    pub fn received(&mut self, bytes: usize) {
        let now = steady();
        if now.duration_since(self.window_start) > Duration::from_secs(1) {
            (self.is_high_volume, self.window_start, self.bytes) = (self.bytes >= HIGH_VOLUME_BYTES, now, 0);
        }
        self.bytes += bytes;
        self.is_high_volume |= self.bytes >= HIGH_VOLUME_BYTES;
        self.has_missed_lines = false;
        self.backoff.reset();
        let is_quick = self.is_high_volume && now >= self.quick_probe_after;
        self.deadline = now
            + if is_quick {
                FIRST_PROBE_HIGH_VOLUME
            } else {
                self.backoff.next_delay()
            };
    }

    /// Returns when the next action is due.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Returns the action that is due at the deadline.
    pub fn action(&self) -> StallAction {
        if self.has_missed_lines {
            StallAction::Replace
        } else {
            StallAction::Probe
        }
    }

    /// Records the result of a probe: whether there are lines that the follow did not deliver.
    pub fn probe_finished(&mut self, has_missed_lines: bool) {
        self.has_missed_lines = has_missed_lines;
        if !has_missed_lines {
            self.quick_probe_after = steady() + QUICK_PROBE_PAUSE;
        }
        let grace = if self.is_high_volume { GRACE_HIGH_VOLUME } else { GRACE };
        self.deadline = steady()
            + if has_missed_lines {
                grace
            } else {
                self.backoff.next_delay()
            };
    }
}

/// Returns whether the log ends with another line than the last one that was numbered. Failures
/// count as no.
pub async fn has_more(request: LogRequest, client: &kube::Client, instance: &Instance, last: Option<Anchor>) -> bool {
    let LogResponse::LogBody(mut log) = request.send(client, instance).await else {
        return false;
    };
    let mut lines = Lines::default();
    lines.start_response(ResumeSearch::new(Extent::Skipped, None, None));
    while let Ok(Some(Ok(frame))) = timeout(FRAME_TIMEOUT, log.next()).await {
        lines.push(&frame);
    }
    let Some(SearchResult::NotFound(Unmatched { last: Some(end), .. })) = lines.end_search() else {
        return false;
    };
    last.is_none_or(|last| (last.time, last.hash) != (end.time, end.hash))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_follow_is_probed_with_backoff_and_replaced_only_if_lines_are_missing() {
        let mut stall = StallDetector::new();
        let delay = |stall: &StallDetector| stall.deadline() - steady();
        assert!(stall.action() == StallAction::Probe && delay(&stall) <= FIRST_PROBE);
        for _ in 0..9 {
            stall.probe_finished(false);
        }
        assert!(stall.action() == StallAction::Probe && delay(&stall) > FIRST_PROBE);
        stall.probe_finished(true);
        assert!(stall.action() == StallAction::Replace && delay(&stall) <= GRACE);
        stall.received(100);
        assert!(stall.action() == StallAction::Probe && delay(&stall) <= FIRST_PROBE);
        assert!(delay(&stall) > FIRST_PROBE_HIGH_VOLUME);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stall_after_high_volume_is_probed_quickly_but_not_at_each_pause() {
        let mut stall = StallDetector::new();
        let delay = |stall: &StallDetector| stall.deadline() - steady();
        for _ in 0..3 {
            stall.received(HIGH_VOLUME_BYTES / 2);
            tokio::time::advance(Duration::from_millis(400)).await;
        }
        stall.received(10);
        assert_eq!(delay(&stall), FIRST_PROBE_HIGH_VOLUME, "high volume a moment ago");
        stall.probe_finished(false);
        assert!(delay(&stall) > FIRST_PROBE_HIGH_VOLUME);
        stall.received(HIGH_VOLUME_BYTES);
        assert!(delay(&stall) > FIRST_PROBE_HIGH_VOLUME, "writes in bursts");
        tokio::time::advance(QUICK_PROBE_PAUSE).await;
        stall.received(HIGH_VOLUME_BYTES);
        assert_eq!(delay(&stall), FIRST_PROBE_HIGH_VOLUME);
        stall.probe_finished(true);
        assert_eq!(delay(&stall), GRACE_HIGH_VOLUME);
        tokio::time::advance(Duration::from_secs(3)).await;
        stall.received(10);
        tokio::time::advance(Duration::from_secs(3)).await;
        stall.received(10);
        assert!(delay(&stall) > FIRST_PROBE_HIGH_VOLUME, "low volume for a while");
    }
}
