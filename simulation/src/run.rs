//! Runs one plan on a thread of its own.

use std::{cell::RefCell, collections::BTreeSet, panic, sync::Once, time::Duration};

use anyhow::Context;
use tracing_subscriber::{EnvFilter, layer::SubscriberExt};

use crate::{
    check::{Rule, Violation},
    plan::Plan,
    trace::{self, TraceLayer},
    world::{Outcome, World},
};

/// Limit of virtual time for one plan, beyond its duration.
const VIRTUAL_LIMIT: Duration = Duration::from_secs(3600);

/// What a run returned.
pub struct Report {
    /// What was found.
    pub outcome: Outcome,
    /// What happened.
    pub trace: Vec<trace::Entry>,
    /// Equal for two runs of one plan.
    pub hash: u64,
    /// How much time passed in the simulation.
    pub virtual_time: Duration,
    /// The rare branches of the product that were reached.
    pub probes: BTreeSet<&'static str>,
}

thread_local! {
    static PANICS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Returns the panics of this thread since the last call.
pub fn take_panics() -> Vec<String> {
    PANICS.take()
}

/// Runs a plan.
///
/// # Errors
/// A fault of the simulation itself.
pub fn run(plan: Plan) -> anyhow::Result<Report> {
    record_panics();
    // A thread of its own: tokio's and the standard library's thread-local generators begin anew.
    let thread = std::thread::Builder::new()
        .name(format!("seed {}", plan.seed))
        .stack_size(8 << 20)
        .spawn(move || run_here(plan))
        .context("cannot start a thread")?;
    thread.join().map_err(|_| anyhow::anyhow!("the simulation panicked"))?
}

fn run_here(plan: Plan) -> anyhow::Result<Report> {
    let filter = EnvFilter::try_from_env("SIMULATION_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let subscriber = tracing_subscriber::registry().with(filter).with(TraceLayer);
    tracing::subscriber::with_default(subscriber, || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_time().start_paused(true);
        #[cfg(tokio_unstable)]
        builder.rng_seed(tokio::runtime::RngSeed::from_bytes(&plan.seed.to_le_bytes()));
        let runtime = builder.build()?;
        let duration = plan.duration;
        let report = runtime.block_on(async {
            trace::begin(system::clock::steady());
            let world = World::start(plan).await?;
            let outcome = match tokio::time::timeout(duration + VIRTUAL_LIMIT, world.run()).await {
                Ok(outcome) => outcome,
                Err(_) => Outcome {
                    violations: vec![Violation::new(Rule::Busy, "world", "the plan does not come to its end")],
                    ..Outcome::default()
                },
            };
            let virtual_time = trace::elapsed();
            let (trace, hash) = trace::end();
            anyhow::Ok(Report {
                outcome,
                trace,
                hash,
                virtual_time,
                probes: system::simulation::take_probes(),
            })
        });
        // Remaining tasks of the product have no effect on the report.
        runtime.shutdown_background();
        report
    })
}

/// Keeps panics of simulated code for the outcome instead of printing them.
fn record_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let default = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if system::simulation::current().is_some() {
                PANICS.with_borrow_mut(|panics| panics.push(info.to_string()));
            } else {
                default(info);
            }
        }));
    });
}
