//! The world of a simulation: hosts, a node with containers, the services, clients and a receiver.
//!
//! The services are the real code. The node's API and kubelet are `kubesim`, the rest are the
//! models of [`machine`](crate::machine).

mod act;
mod clients;
mod hosts;
mod node;
mod quiet;
mod receiver;
mod relay;
mod rest;
mod services;
mod tail;

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;

use crate::{
    check::{Rule, Violation, printed::Printed},
    plan::{Kind, Plan},
    trace,
};
use clients::Clients;
use hosts::Hosts;
use node::Node;
use receiver::Receiver;
use services::Services;

/// Time between the steps of a plan and the first look whether everything is quiet.
const SETTLE: Duration = Duration::from_secs(5);

/// The world while a plan runs.
pub struct World {
    plan: Plan,
    hosts: Hosts,
    node: Node,
    services: Services,
    clients: Clients,
    receiver: Receiver,
    printed: Arc<Mutex<Printed>>,
    /// Whether files are damaged or lose what was not synced.
    may_lose_files: bool,
    /// A disk refuses syncs.
    refuses_syncs: bool,
}

/// What a simulation found.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Broken promises.
    pub violations: Vec<Violation>,
    /// How many lines were printed.
    pub printed: usize,
    /// How many lines clients received.
    pub received: usize,
    /// The gap notices that were seen: code, reason.
    pub notices: std::collections::BTreeSet<String>,
}

/// Runs code after a time, outside all processes: the end of a fault.
fn later(time: Duration, code: impl FnOnce() + Send + 'static) {
    tokio::spawn(async move {
        tokio::time::sleep(time).await;
        code();
    });
}

impl World {
    /// Builds the world of a plan and starts everything.
    ///
    /// # Errors
    /// The world itself cannot be built: a fault of the simulation.
    pub async fn start(plan: Plan) -> anyhow::Result<Self> {
        let hosts = Hosts::new(&plan);
        let printed = Arc::new(Mutex::new(Printed::default()));
        let node = Node::start(&plan, &hosts, Arc::clone(&printed)).await?;
        let receiver = Receiver::start(&hosts, &plan);
        let services = Services::start(&plan, &hosts, &node);
        let clients = Clients::new(&plan, &hosts);
        let kinds = plan.kinds();
        Ok(Self {
            refuses_syncs: kinds.contains(&Kind::DiskRefuses),
            may_lose_files: kinds.contains(&Kind::PowerLoss) || kinds.contains(&Kind::Damage),
            plan,
            hosts,
            node,
            services,
            clients,
            receiver,
            printed,
        })
    }

    /// Runs the plan, ends all faults, waits until everything is quiet, and checks the promises.
    pub async fn run(mut self) -> Outcome {
        self.clients.add_drain(&self.receiver);
        let steps = std::mem::take(&mut self.plan.steps);
        for step in steps {
            tokio::time::sleep(step.at.saturating_sub(trace::elapsed())).await;
            trace::world(format!("step {}: {}", step.number, step.action));
            self.act(step.number, step.action);
        }
        tokio::time::sleep(self.plan.duration.saturating_sub(trace::elapsed())).await;
        self.end_faults();
        tokio::time::sleep(SETTLE).await;
        let violations = self.wait_until_quiet().await;
        self.outcome(violations)
    }

    fn outcome(&self, mut violations: Vec<Violation>) -> Outcome {
        for panic in crate::run::take_panics() {
            violations.push(Violation::new(Rule::Panic, "code", panic));
        }
        crate::check::limit(&mut violations);
        let printed = self.printed.lock().count();
        let (received, notices) = self.clients.summary();
        Outcome {
            violations,
            printed,
            received,
            notices,
        }
    }
}
