//! Checks the world at rest, after everything has become quiet: metrics tell what happened, files
//! and connections of the past are gone, and idle services ask little.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use bus::GapReason;

use super::{World, quiet::LOOK, services, tail::Tail};
use crate::{
    check::{Rule, Violation, received::Received},
    trace,
};

/// How long the world is watched.
const REST: Duration = Duration::from_secs(60);

/// How long lines that are printed at rest may take. A drain whose idle connection was cut by a proxy
/// learns it from them, and sends them again.
const ARRIVAL: Duration = Duration::from_secs(120);

/// Requests for logs a minute and container: probes of quiet logs, follows that are renewed, and
/// retries while a log may belong to another instance.
const REQUESTS: u64 = 8;

/// Files that one container's state may take at rest, and that a process may keep besides.
const FILES: usize = 64;

/// Files that a disk which refuses syncs may leave besides.
const REFUSED_SYNCS: usize = 512;

/// The counters of gaps and of the lines in them.
const COUNTERS: [&str; 2] = ["gaps", "lost_lines"];

/// Connections of clients, drain, proxies and balancers, and those that wait for reuse.
const CONNECTIONS: usize = 64;

impl World {
    /// Watches the world at rest. `histories` are complete reads of all apps; `counted`: the counters
    /// of gaps before they began.
    pub(super) async fn check_rest(&self, histories: &[Arc<Tail>], counted: &BTreeMap<String, u64>) -> Vec<Violation> {
        let mut violations = self.check_metrics(histories, counted);
        let requests = self.node.log_requests();
        tokio::time::sleep(REST).await;
        let requests = self.node.log_requests() - requests;
        let containers = self.node.containers() as u64;
        if requests > REQUESTS * containers {
            violations.push(Violation::new(
                Rule::Busy,
                "collector",
                format!("{requests} requests for the logs of {containers} quiet containers in {REST:?}"),
            ));
        }
        let connections = self.hosts.server.network.open_connections();
        if connections > CONNECTIONS {
            violations.push(Violation::new(
                Rule::LeftBehind,
                "network",
                format!("{connections} connections are open at rest"),
            ));
        }
        violations.extend(self.check_files());
        violations
    }

    /// What is printed after everything was quiet arrives soon.
    pub(super) async fn check_new_lines(&self) -> Vec<Violation> {
        self.node.print_everywhere(20, 60);
        let printed = trace::elapsed();
        loop {
            tokio::time::sleep(LOOK).await;
            let violations = self.check_live(printed).await;
            if violations.is_empty() || trace::elapsed() > printed + ARRIVAL {
                return violations;
            }
        }
    }

    /// The spool is empty, and files do not add up.
    fn check_files(&self) -> Vec<Violation> {
        let files = services::state_files(&self.hosts.server);
        // A probe of the disk that could not be removed is overwritten by the next one.
        let is_probe = |path: &Path| path.file_name().is_some_and(|name| name == "probe");
        let is_spool = |path: &Path| !is_probe(path) && path.components().any(|part| part.as_os_str() == "spool");
        let spool = files.iter().filter(|(path, len)| is_spool(path) && *len > 0);
        let (mut spooled, mut example) = (0, None);
        for (path, len) in spool {
            spooled += len;
            example = example.or(Some(path.display()));
        }
        let mut violations = Vec::new();
        // What a damaged spool holds is kept if nothing tells whose it is.
        if let Some(example) = example.filter(|_| !self.may_lose_files) {
            let detail =
                format!("the spool holds {spooled} bytes although the bus accepts everything, for example {example}");
            violations.push(Violation::new(Rule::LeftBehind, "collector", detail));
        }
        // Each sync that a disk refuses closes a segment of the bus, until retention deletes it.
        let refused = if self.refuses_syncs { REFUSED_SYNCS } else { 0 };
        let most = FILES * (1 + self.plan.apps.len()) + refused;
        if files.len() > most {
            let detail = format!("{} files at rest, for example {}", files.len(), files[0].0.display());
            violations.push(Violation::new(Rule::LeftBehind, "services", detail));
        }
        violations
    }

    /// Returns the counters of gaps and lost lines, by name.
    pub(super) fn counted_gaps(&self) -> BTreeMap<String, u64> {
        let exported = self.services.exported();
        let mut counted = BTreeMap::new();
        for reason in GapReason::labels() {
            for counter in COUNTERS {
                let name = counter_name(counter, reason);
                counted.insert(name.clone(), exported.sum(&name));
            }
        }
        counted
    }

    /// The counters of gaps and lost lines agree with the notices that readers see. A doubt that
    /// ends while they read is counted, and they may not see it.
    fn check_metrics(&self, histories: &[Arc<Tail>], before: &BTreeMap<String, u64>) -> Vec<Violation> {
        // One that dies between recording a gap and publishing it records the gap again.
        if self.services.exported().processes("collector") > 1 {
            return Vec::new();
        }
        let mut seen: BTreeMap<String, (u64, u64)> = BTreeMap::new();
        for log in histories.iter().filter_map(|history| history.logs().pop()) {
            for received in &log.received {
                if let Received::Notice(notice) = received
                    && notice.stream.is_some()
                {
                    let (gaps, lines) = seen.entry(notice.reason.clone()).or_default();
                    *gaps += 1;
                    *lines += notice.count.unwrap_or(0);
                }
            }
        }
        let mut violations = Vec::new();
        let after = self.counted_gaps();
        let count = |counters: &BTreeMap<String, u64>, name: &String| counters.get(name).copied().unwrap_or_default();
        for reason in GapReason::labels() {
            let (gaps, lines) = seen.get(reason).copied().unwrap_or_default();
            for (counter, seen) in COUNTERS.into_iter().zip([gaps, lines]) {
                let name = counter_name(counter, reason);
                let counted = count(before, &name)..=count(&after, &name);
                if !counted.contains(&seen) {
                    let detail = format!("{name} is {}, but the history shows {seen}", counted.end());
                    violations.push(Violation::new(Rule::WrongMetric, "collector", detail));
                }
            }
        }
        violations
    }
}

fn counter_name(counter: &str, reason: &str) -> String {
    format!("tributary_collector_{counter}_total{{reason=\"{reason}\"}}")
}
