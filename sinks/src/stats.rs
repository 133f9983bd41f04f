//! What is known of a drain, for its report.

use std::time::SystemTime;

use bus::PublishTime;
use parking_lot::Mutex;
use registry::{DrainReport, DrainState};

/// What is known of a drain, shared by who reads it and who reports it.
pub(crate) struct Counts(Mutex<Known>);

#[derive(Default)]
struct Known {
    report: DrainReport,
    unsent_since: Option<PublishTime>,
    unsettled_since: Option<PublishTime>,
}

impl Counts {
    pub(crate) fn new() -> Self {
        Self(Mutex::default())
    }

    /// How it is.
    pub(crate) fn report(&self) -> DrainReport {
        let known = self.0.lock();
        let lag = known
            .unsent_since
            .map(|since| PublishTime::now().since(since).as_secs());
        DrainReport {
            lag_seconds: lag.unwrap_or_default(),
            ..known.report.clone()
        }
    }

    /// Up to when its receiver has everything, as far as the bus has handed it over.
    pub(crate) fn delivered_until(&self) -> SystemTime {
        let since = self.0.lock().unsettled_since;
        since.map_or_else(SystemTime::now, |since| {
            SystemTime::UNIX_EPOCH + since.since(PublishTime(0))
        })
    }

    /// Notes something. Once a batch, not once a line.
    pub(crate) fn note(&self, note: impl FnOnce(&mut DrainReport)) {
        note(&mut self.0.lock().report);
    }

    /// Notes what waits: lines that are not sent, since when, and since when something is not sure.
    pub(crate) fn waits(&self, lines: u64, unsent_since: Option<PublishTime>, unsettled_since: Option<PublishTime>) {
        let mut known = self.0.lock();
        known.report.lag_lines = lines;
        (known.unsent_since, known.unsettled_since) = (unsent_since, unsettled_since);
    }

    pub(crate) fn connected(&self) {
        self.note(|report| (report.state, report.connected_since) = (DrainState::Connected, Some(now())));
    }

    pub(crate) fn failed(&self, why: &str) {
        self.note(|report| {
            (report.state, report.connected_since) = (DrainState::Failing, None);
            (report.last_error, report.last_error_at) = (Some(why.to_owned()), Some(now()));
        });
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}
