//! Waits until everything is quiet after the faults have ended, and checks the promises.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{World, tail::Tail};
use crate::{
    check::{Rule, Violation, drain, tail},
    plan::Source,
    trace,
};

/// How long everything may take to become quiet. A drain's backoff is a minute at most, and its
/// gaps wait as long.
const QUIET_TIMEOUT: Duration = Duration::from_secs(400);

/// Pause between two looks.
pub(super) const LOOK: Duration = Duration::from_secs(5);

/// Pause between two reads of history.
const REREAD: Duration = Duration::from_secs(40);

impl World {
    /// Waits until every promise is kept. Returns those that are still broken at the deadline.
    pub(super) async fn wait_until_quiet(&mut self) -> Vec<Violation> {
        let since = trace::elapsed();
        if self.plan.source == Source::Api {
            self.node.print_in_empty_logs();
        }
        let mut histories: Vec<Arc<Tail>> = Vec::new();
        let mut counted = BTreeMap::new();
        // What the last reads of history broke.
        let mut broken = Vec::new();
        loop {
            let mut violations = self.check_live(since).await;
            if violations.is_empty() && histories.is_empty() {
                // Only now: history must hold what the tails have.
                counted = self.counted_gaps();
                histories = self
                    .printing_apps()
                    .into_iter()
                    .map(|app| self.clients.read_history(app))
                    .collect();
                if histories.is_empty() {
                    return violations;
                }
            } else if violations.is_empty() && histories.iter().all(|history| history.is_complete()) {
                violations.extend(self.check_histories(&histories));
                let is_over = trace::elapsed() > since + QUIET_TIMEOUT;
                if !violations.is_empty() && !violations.iter().any(is_final) && !is_over {
                    // Nothing else shows whether an app without a tail is quiet.
                    (histories, broken) = (Vec::new(), violations);
                    tokio::time::sleep(REREAD).await;
                    continue;
                }
                if violations.is_empty() {
                    violations.extend(self.check_rest(&histories, &counted).await);
                }
                if violations.is_empty() {
                    violations.extend(self.check_new_lines().await);
                }
                return violations;
            }
            if violations.iter().any(is_final) {
                // The others may still be mended by waiting.
                violations.retain(is_final);
                return violations;
            }
            if trace::elapsed() > since + QUIET_TIMEOUT && !broken.is_empty() {
                return broken;
            }
            if trace::elapsed() > since + QUIET_TIMEOUT {
                let incomplete = histories.iter().filter(|history| !history.is_complete());
                violations
                    .extend(incomplete.map(|history| {
                        Violation::new(Rule::NotCaughtUp, &history.name, "the history is not complete")
                    }));
                return violations;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Returns the indexes of the apps that printed lines: the others do not exist.
    fn printing_apps(&self) -> Vec<usize> {
        let printed = self.printed.lock();
        let prints = |app: &String| printed.units().any(|(_, lines)| lines.app == *app);
        let apps = self.plan.apps.iter().enumerate();
        apps.filter(|(_, app)| prints(app)).map(|(index, _)| index).collect()
    }

    /// Checks tails, the drain and the services.
    pub(super) async fn check_live(&self, since: Duration) -> Vec<Violation> {
        let mut violations = Vec::new();
        for failure in self.services.failures(since) {
            violations.push(Violation::new(Rule::ServiceFailed, "services", failure));
        }
        if !self.clients.is_ready().await {
            violations.push(Violation::new(Rule::NotReady, "services", "/readyz is not 200"));
        }
        let printed = self.printed.lock();
        for reader in &self.clients.tails {
            let mut logs = reader.logs();
            if logs.is_empty() && printed.units().any(|(_, lines)| lines.app == reader.app) {
                violations.push(Violation::new(
                    Rule::NotCaughtUp,
                    &reader.name,
                    "it never got a response",
                ));
            }
            if let Some(last) = logs.last_mut() {
                last.is_complete = true;
            }
            violations.extend(logs.iter().flat_map(|log| tail::check(&printed, log)));
        }
        for history in self.clients.histories.iter().flat_map(|history| history.logs()) {
            violations.extend(tail::check(&printed, &history));
        }
        let drain = self.receiver.log();
        let mut drain = drain.lock().clone();
        drain.is_complete = true;
        if drain.since != Duration::MAX {
            violations.extend(drain::check(&printed, &drain));
        }
        violations
    }

    /// Checks reads of the whole history.
    fn check_histories(&self, histories: &[Arc<Tail>]) -> Vec<Violation> {
        let printed = self.printed.lock();
        let logs = histories.iter().filter_map(|history| history.logs().pop());
        let all = logs.map(|mut log| {
            (log.since, log.is_complete) = (Duration::ZERO, true);
            log
        });
        all.flat_map(|log| tail::check(&printed, &log)).collect()
    }
}

/// Returns whether waiting cannot mend it.
fn is_final(violation: &Violation) -> bool {
    matches!(
        violation.rule,
        Rule::Repeat | Rule::NumberReused | Rule::Order | Rule::Invented | Rule::OtherApp | Rule::FalseGap
    )
}
