//! A follow that is open and silent is not believed: it may sit on a file that was rotated away.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use crate::{
    backoff::Backoff,
    instance::Instance,
    lines::Lines,
    request::{Answer, LogRequest},
    seek::{Join, Seek},
};

/// A follow silent for so long is asked for again; then ever rarer, since most silent containers have nothing to say.
const FIRST: Duration = Duration::from_secs(30);

/// The rarest: a node of a hundred silent containers asks about once a second.
const MOST: Duration = Duration::from_secs(120);

/// A line that the probe saw may just be on its way to the follow: it gets so long.
const GRACE: Duration = Duration::from_secs(2);

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
}

impl Silence {
    /// Begins now.
    pub fn new() -> Self {
        let mut backoff = Backoff::new(FIRST, MOST);
        Self {
            until: Instant::now() + backoff.next(),
            backoff,
            missed: false,
        }
    }

    /// Something came.
    pub fn broken(&mut self) {
        *self = Self::new();
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
        self.until = Instant::now() + if missed { GRACE } else { self.backoff.next() };
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
        silence.broken();
        assert!(silence.due() == Due::Probe && waits(&silence) <= FIRST);
    }
}
