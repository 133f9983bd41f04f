//! Reports why lines of a container are not collected: to the operator by a metric and by readiness,
//! to the app's owner by platform messages.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bus::{AppName, Timestamp, notice};
use parking_lot::Mutex;
use prometheus_client::metrics::gauge::Gauge;
use system::clock::{Instant, since, steady};

use crate::publish::notices::Notices;

/// Shorter failures are not reported: a kubelet or a runtime restarts in less.
const REPORT_AFTER: Duration = Duration::from_secs(60);

/// The containers that cannot be read now. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct UnreadableContainers(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    next: u64,
    /// Process and reason.
    containers: BTreeMap<u64, (String, String)>,
}

impl UnreadableContainers {
    /// Returns one line about them, or `None` if there is none.
    pub fn summary(&self) -> Option<String> {
        let state = self.0.lock();
        let (process, reason) = state.containers.values().next()?;
        Some(match state.containers.len() {
            1 => format!("the log of {process} cannot be read: {reason}"),
            n => format!("the logs of {n} containers cannot be read; {process}: {reason}"),
        })
    }
}

/// Reports about one container.
#[derive(Debug)]
pub struct ContainerReport {
    app: AppName,
    process: String,
    all: UnreadableContainers,
    notices: Notices,
    gauge: Gauge,
    /// Since when it cannot be read.
    failing: Option<(Instant, Timestamp)>,
    reported: Option<u64>,
}

impl ContainerReport {
    /// Starts with a container that can be read.
    pub fn new(app: AppName, process: String, all: UnreadableContainers, notices: Notices, gauge: Gauge) -> Self {
        Self {
            app,
            process,
            all,
            notices,
            gauge,
            failing: None,
            reported: None,
        }
    }

    /// Records that the log could not be read. Reports it if that lasts.
    pub fn failed(&mut self, reason: &str) {
        let (at, time) = *self.failing.get_or_insert_with(|| (steady(), Timestamp::now()));
        if self.reported.is_some() || since(at) < REPORT_AFTER {
            return;
        }
        tracing::error!(app = %self.app, process = self.process, reason, "log cannot be read, retrying");
        self.notices
            .send(&self.app, notice::container_unreadable(&self.process, time));
        self.gauge.inc();
        let mut state = self.all.0.lock();
        let id = state.next;
        state.next += 1;
        state.containers.insert(id, (self.process.clone(), reason.to_owned()));
        self.reported = Some(id);
    }

    /// Tells the app's owner that the pod was excluded.
    pub fn excluded(&mut self) {
        self.recovered();
        self.notices.send(&self.app, notice::excluded(&self.process));
    }

    /// Records that the log can be read, or need not be read.
    pub fn recovered(&mut self) {
        self.failing = None;
        if let Some(id) = self.reported.take() {
            tracing::info!(app = %self.app, process = self.process, "log can be read again");
            self.gauge.dec();
            self.all.0.lock().containers.remove(&id);
        }
    }
}

impl Drop for ContainerReport {
    fn drop(&mut self) {
        self.recovered();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_container_is_reported_once_it_cannot_be_read_for_a_minute_and_until_it_can() {
        let (all, gauge) = (UnreadableContainers::default(), Gauge::default());
        let app: AppName = "shop".parse().unwrap();
        let mut report = ContainerReport::new(app, "web-1".to_owned(), all.clone(), Notices::unread(), gauge.clone());
        report.failed("too many open files");
        assert_eq!(all.summary(), None);
        tokio::time::advance(REPORT_AFTER).await;
        report.failed("too many open files");
        report.failed("too many open files");
        assert_eq!(
            all.summary().unwrap(),
            "the log of web-1 cannot be read: too many open files"
        );
        assert_eq!(gauge.get(), 1);
        report.recovered();
        assert_eq!((all.summary(), gauge.get()), (None, 0));
        report.failed("too many open files");
        tokio::time::advance(REPORT_AFTER).await;
        report.failed("too many open files");
        drop(report);
        assert_eq!((all.summary(), gauge.get()), (None, 0));
    }
}
