//! A follow that is open and silent is not believed: it may sit on a file that was rotated away.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use crate::{
    api::request::{Answer, LogRequest},
    instance::Instance,
    retry::Backoff,
    stream::{
        lines::Lines,
        resume_search::{Join, Seek},
    },
};

/// A follow silent for so long is asked for again; then ever rarer, since most silent containers have nothing to say.
const FIRST: Duration = Duration::from_secs(30);

/// One that was loud until then, for so long: before it is asked for, its file may have been rotated twice.
const FIRST_OF_LOUD: Duration = Duration::from_millis(700);

/// But one that speaks in bursts has silences that mean nothing: after a probe in vain not before this.
const SOON_AGAIN: Duration = Duration::from_secs(3);

/// Loud is what brought so much within a second: at this rate the smallest file that is rotated, of 1 MiB, is full within [`FIRST`].
const LOUD_BYTES: usize = 32 << 10;

/// The rarest: a node of a hundred silent containers asks about once a second.
const MOST: Duration = Duration::from_secs(120);

/// A line that the probe saw may just be on its way to the follow: it gets so long.
const GRACE: Duration = Duration::from_secs(2);

/// The same after a loud one fell silent: another follow costs less than a file.
const GRACE_OF_LOUD: Duration = Duration::from_millis(300);

/// How long a probe may wait for a frame.
const PROBE_WAIT: Duration = Duration::from_secs(10);

/// What is due when a silence has lasted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// To ask whether there is more.
    Probe,
    /// There is more, and it did not come: to open another follow.
    Replace,
}

/// How long a follow has been silent, and what comes of it.
#[derive(Debug)]
pub struct Silence {
    backoff: Backoff,
    until: Instant,
    missed: bool,
    /// What came in the second that began then.
    second: Instant,
    bytes: usize,
    /// It was loud in that second, or in the one before.
    loud: bool,
    /// Until then it is probed as late as one that is not.
    in_vain: Instant,
}

impl Silence {
    /// Begins now.
    pub fn new() -> Self {
        let mut backoff = Backoff::new(FIRST, MOST);
        let now = Instant::now();
        Self {
            until: now + backoff.next_delay(),
            backoff,
            missed: false,
            second: now,
            bytes: 0,
            loud: false,
            in_vain: now,
        }
    }

    /// So many bytes came.
    pub fn broken(&mut self, bytes: usize) {
        let now = Instant::now();
        if now.duration_since(self.second) > Duration::from_secs(1) {
            (self.loud, self.second, self.bytes) = (self.bytes >= LOUD_BYTES, now, 0);
        }
        self.bytes += bytes;
        self.loud |= self.bytes >= LOUD_BYTES;
        self.missed = false;
        self.backoff.reset();
        let soon = self.loud && now >= self.in_vain;
        self.until = now + if soon { FIRST_OF_LOUD } else { self.backoff.next_delay() };
    }

    /// When it will have lasted.
    pub fn until(&self) -> Instant {
        self.until
    }

    /// What is due then.
    pub fn due(&self) -> Due {
        if self.missed { Due::Replace } else { Due::Probe }
    }

    /// The probe answered: whether lines are there that the follow did not bring.
    pub fn probed(&mut self, missed: bool) {
        self.missed = missed;
        if !missed {
            self.in_vain = Instant::now() + SOON_AGAIN;
        }
        let grace = if self.loud { GRACE_OF_LOUD } else { GRACE };
        self.until = Instant::now() + if missed { grace } else { self.backoff.next_delay() };
    }
}

/// Whether a plain read finds lines behind those had. Where it cannot be told: no.
pub async fn has_more(request: LogRequest, client: &kube::Client, instance: &Instance, seek: Option<Seek>) -> bool {
    let Answer::Log(mut log) = request.send(client, instance).await else {
        return false;
    };
    let mut lines = Lines::default();
    lines.begin(seek, request.since.is_some());
    while let Ok(Some(Ok(frame))) = timeout(PROBE_WAIT, log.next()).await {
        let join = lines.push(&frame);
        if matches!(join, Some(Join::Absent { .. })) || lines.take().is_some() {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_follow_is_probed_ever_rarer_and_replaced_only_where_lines_are_missed() {
        let mut silence = Silence::new();
        let waits = |silence: &Silence| silence.until() - Instant::now();
        assert!(silence.due() == Due::Probe && waits(&silence) <= FIRST);
        for _ in 0..9 {
            silence.probed(false);
        }
        assert!(silence.due() == Due::Probe && waits(&silence) > FIRST);
        silence.probed(true);
        assert!(silence.due() == Due::Replace && waits(&silence) <= GRACE);
        silence.broken(100);
        assert!(silence.due() == Due::Probe && waits(&silence) <= FIRST);
        assert!(waits(&silence) > FIRST_OF_LOUD);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_was_loud_and_fell_silent_is_probed_soon_and_not_at_each_pause() {
        let mut silence = Silence::new();
        let waits = |silence: &Silence| silence.until() - Instant::now();
        for _ in 0..3 {
            silence.broken(LOUD_BYTES / 2);
            tokio::time::advance(Duration::from_millis(400)).await;
        }
        silence.broken(10);
        assert_eq!(waits(&silence), FIRST_OF_LOUD, "loud a moment ago");
        silence.probed(false);
        assert!(waits(&silence) > FIRST_OF_LOUD);
        silence.broken(LOUD_BYTES);
        assert!(waits(&silence) > FIRST_OF_LOUD, "speaks in bursts");
        tokio::time::advance(SOON_AGAIN).await;
        silence.broken(LOUD_BYTES);
        assert_eq!(waits(&silence), FIRST_OF_LOUD);
        silence.probed(true);
        assert_eq!(waits(&silence), GRACE_OF_LOUD);
        tokio::time::advance(Duration::from_secs(3)).await;
        silence.broken(10);
        tokio::time::advance(Duration::from_secs(3)).await;
        silence.broken(10);
        assert!(waits(&silence) > FIRST_OF_LOUD, "quiet for long");
    }
}
