//! The counters and the state of one drain.

use std::time::SystemTime;

use bus::PublishTime;
use parking_lot::Mutex;
use registry::{DrainReport, DrainState};
use system::clock;

use crate::metrics::{GapLabel, Metrics};

/// The counters and the state of a drain, shared by the task that runs it and the supervisor.
pub(crate) struct DrainStats {
    state: Mutex<State>,
    metrics: Metrics,
}

#[derive(Default)]
struct State {
    report: DrainReport,
    unsent_since: Option<PublishTime>,
    unconfirmed_since: Option<PublishTime>,
}

impl DrainStats {
    pub(crate) fn new(metrics: Metrics) -> Self {
        Self {
            state: Mutex::default(),
            metrics,
        }
    }

    /// The current report.
    pub(crate) fn report(&self) -> DrainReport {
        let state = self.state.lock();
        let lag = state
            .unsent_since
            .map(|since| PublishTime::now().since(since).as_secs());
        DrainReport {
            lag_seconds: lag.unwrap_or_default(),
            ..state.report.clone()
        }
    }

    /// The time up to which everything read from the bus is confirmed.
    pub(crate) fn delivered_until(&self) -> SystemTime {
        let since = self.state.lock().unconfirmed_since;
        since.map_or_else(clock::wall_time, |since| {
            SystemTime::UNIX_EPOCH + since.since(PublishTime(0))
        })
    }

    /// Counts confirmed lines.
    pub(crate) fn add_delivered(&self, lines: u64) {
        if lines > 0 {
            self.state.lock().report.delivered += lines;
            self.metrics.add_delivered(lines);
        }
    }

    /// Counts lines that are sent again.
    pub(crate) fn add_resent(&self, lines: u64) {
        if lines > 0 {
            self.state.lock().report.resent += lines;
            self.metrics.add_resent(lines);
        }
    }

    /// Counts a gap. `lines` is 0 if the number is unknown.
    pub(crate) fn add_gap(&self, reason: GapLabel, lines: u64) {
        // The report counts the drain's own losses; a collector's gaps are part of the log.
        if !reason.is_collectors() {
            self.state.lock().report.dropped += lines;
        }
        self.metrics.add_gap(reason, lines);
    }

    /// Sets the number of unsent lines, and the publish times of the first unsent and the first
    /// unconfirmed line.
    pub(crate) fn set_pending(
        &self,
        lines: u64,
        unsent_since: Option<PublishTime>,
        unconfirmed_since: Option<PublishTime>,
    ) {
        let mut state = self.state.lock();
        state.report.lag_lines = lines;
        (state.unsent_since, state.unconfirmed_since) = (unsent_since, unconfirmed_since);
    }

    pub(crate) fn set_connected(&self) {
        let mut state = self.state.lock();
        // A receiver that rejects lines goes on to do so on a new connection until it accepts some.
        if state.report.state != DrainState::Refusing {
            state.report.state = DrainState::Connected;
        }
        state.report.connected_since = Some(now());
    }

    /// Records that the receiver has accepted lines.
    pub(crate) fn set_accepted(&self) {
        let mut state = self.state.lock();
        if state.report.state == DrainState::Refusing {
            state.report.state = DrainState::Connected;
        }
    }

    /// Records that the receiver rejects lines, with its current answer.
    pub(crate) fn set_refusing(&self, answer: &str) {
        let mut state = self.state.lock();
        state.report.state = DrainState::Refusing;
        (state.report.last_error, state.report.last_error_at) = (Some(answer.to_owned()), Some(now()));
    }

    pub(crate) fn set_failing(&self, error: &str) {
        let mut state = self.state.lock();
        (state.report.state, state.report.connected_since) = (DrainState::Failing, None);
        (state.report.last_error, state.report.last_error_at) = (Some(error.to_owned()), Some(now()));
    }
}

fn now() -> u64 {
    clock::wall().as_secs()
}
