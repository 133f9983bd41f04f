//! Makes a failing plan smaller: leaves out steps while the same promise stays broken.

use crate::{
    check::Rule,
    plan::Plan,
    run::{self, Report},
};

/// Limit of runs for one plan.
const MAX_RUNS: usize = 150;

/// A smaller plan, and its run.
pub struct Shrunk {
    /// The plan.
    pub plan: Plan,
    /// Its run.
    pub report: Report,
    /// How many runs it took.
    pub runs: usize,
}

/// Leaves out steps of a plan that breaks `rule`.
///
/// # Errors
/// A fault of the simulation itself.
pub fn shrink(plan: Plan, report: Report, rule: Rule) -> anyhow::Result<Shrunk> {
    let mut best = Shrunk { plan, report, runs: 0 };
    let mut chunk = best.plan.steps.len().div_ceil(2).max(1);
    loop {
        let smaller = without_chunks(&mut best, chunk, rule)?;
        if best.runs >= MAX_RUNS || (chunk == 1 && !smaller) {
            return Ok(best);
        }
        if !smaller || chunk > best.plan.steps.len() {
            chunk = chunk.div_ceil(2);
        }
    }
}

/// Tries to leave out each chunk of steps. Returns whether one could go.
fn without_chunks(best: &mut Shrunk, chunk: usize, rule: Rule) -> anyhow::Result<bool> {
    let mut smaller = false;
    let mut at = 0;
    while at < best.plan.steps.len() && best.runs < MAX_RUNS {
        let mut plan = best.plan.clone();
        let end = (at + chunk).min(plan.steps.len());
        plan.steps.drain(at..end);
        best.runs += 1;
        let report = run::run(plan.clone())?;
        if report.outcome.violations.iter().any(|violation| violation.rule == rule) {
            (best.plan, best.report) = (plan, report);
            smaller = true;
        } else {
            at = end;
        }
    }
    Ok(smaller)
}
