//! What the command line prints.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use simulation::{
    check::Rule,
    coverage, known,
    plan::{Kind, Plan},
    run::Report,
    shrink::Shrunk,
};

use crate::arguments::Arguments;

/// Totals of all seeds.
#[derive(Default)]
pub struct Totals {
    failing: u64,
    printed: usize,
    virtual_time: Duration,
    rules: BTreeMap<Rule, u64>,
    known: BTreeMap<&'static str, u64>,
    notices: BTreeSet<String>,
    probes: BTreeSet<&'static str>,
}

impl Totals {
    /// Adds a run.
    pub fn add(&mut self, arguments: &Arguments, plan: &Plan, report: &Report) {
        let outcome = &report.outcome;
        self.printed += outcome.printed;
        self.virtual_time += report.virtual_time;
        self.notices.extend(outcome.notices.iter().cloned());
        self.probes.extend(&report.probes);
        if outcome.violations.is_empty() {
            return;
        }
        let names = explain(arguments, plan, report);
        for name in &names {
            *self.known.entry(name).or_default() += 1;
        }
        if !names.is_empty() {
            return;
        }
        self.failing += 1;
        let rules: BTreeSet<_> = outcome.violations.iter().map(|violation| violation.rule).collect();
        for rule in rules {
            *self.rules.entry(rule).or_default() += 1;
        }
    }

    /// Returns how many seeds broke a promise that no known fault explains.
    pub fn failing(&self) -> u64 {
        self.failing
    }

    /// Prints the totals.
    pub fn print(&self, seeds: u64, took: Duration) {
        println!(
            "{} of {seeds} seeds broke a promise; {} lines, {:.1} simulated hours in {:.0} s",
            self.failing,
            self.printed,
            self.virtual_time.as_secs_f64() / 3600.0,
            took.as_secs_f64()
        );
        for (rule, seeds) in &self.rules {
            println!("  {}: {seeds} seeds", rule.name());
        }
        for (name, seeds) in &self.known {
            println!("  known fault {name}: {seeds} seeds");
        }
    }

    /// Prints which notices and which probes of the product were reached.
    ///
    /// # Errors
    /// The product's source code cannot be read.
    pub fn print_coverage(&self) -> anyhow::Result<()> {
        let notices: Vec<_> = self.notices.iter().map(String::as_str).collect();
        println!("notices: {}", notices.join(", "));
        let all = coverage::probes_in_source()?;
        let missed: Vec<_> = all.iter().filter(|name| !self.probes.contains(name.as_str())).collect();
        println!(
            "{} of {} probes reached; not reached:",
            all.len() - missed.len(),
            all.len()
        );
        for name in missed {
            println!("  {name}");
        }
        Ok(())
    }
}

/// Returns the known faults that account for all violations.
fn explain(arguments: &Arguments, plan: &Plan, report: &Report) -> Vec<&'static str> {
    if arguments.strict {
        return Vec::new();
    }
    known::explain(&report.outcome.violations, plan)
}

/// Prints a run.
pub fn print(arguments: &Arguments, plan: &Plan, report: &Report, took: Duration) {
    let outcome = &report.outcome;
    let names = explain(arguments, plan, report);
    let is_failing = !outcome.violations.is_empty() && names.is_empty();
    if !is_failing && arguments.quiet {
        return;
    }
    let verdict = match (outcome.violations.is_empty(), names.is_empty()) {
        (true, _) => "ok".to_owned(),
        (false, true) => "FAILED".to_owned(),
        (false, false) => format!("known fault {}", names.join(", ")),
    };
    println!(
        "seed {}: {verdict}; {}, {} bus, {:.0} simulated s in {:.2} s, {} lines printed, {} received, {} steps, trace {:016x}",
        plan.seed,
        plan.source.name(),
        plan.engine.name(),
        report.virtual_time.as_secs_f64(),
        took.as_secs_f64(),
        outcome.printed,
        outcome.received,
        plan.steps.len(),
        report.hash
    );
    // The trace of the smaller plan follows.
    let is_shrunk = arguments.shrink && !outcome.violations.is_empty();
    if arguments.trace && !is_shrunk {
        print_trace(plan, report);
    }
    for violation in &outcome.violations {
        println!("  {violation}");
    }
    if is_failing && !arguments.trace && !arguments.shrink {
        println!("  run it again: {} --shrink", arguments.command(plan.seed));
    }
}

/// Prints the kinds of faults.
pub fn print_kinds() {
    println!("Ordinary events:");
    for kind in Kind::ALL.iter().filter(|kind| !kind.is_fault()) {
        println!("  {:<16} {}", kind.name(), kind.what());
    }
    println!("Faults:");
    for kind in Kind::ALL.iter().filter(|kind| kind.is_fault()) {
        println!("  {:<16} {}", kind.name(), kind.what());
    }
}

fn print_trace(plan: &Plan, report: &Report) {
    for step in &plan.steps {
        println!(
            "  step {:>3} at {:>8.3}: {}",
            step.number,
            step.at.as_secs_f64(),
            step.action
        );
    }
    for entry in &report.trace {
        println!("{entry}");
    }
}

/// Prints a plan that was made smaller, with its trace, and how to run it again.
pub fn print_shrunk(arguments: &Arguments, shrunk: &Shrunk, steps: usize, rule: Rule) {
    println!(
        "{} of {steps} steps still break the promise {} ({} runs):",
        shrunk.plan.steps.len(),
        rule.name(),
        shrunk.runs
    );
    print_trace(&shrunk.plan, &shrunk.report);
    for violation in &shrunk.report.outcome.violations {
        println!("  {violation}");
    }
    let numbers: Vec<_> = shrunk.plan.steps.iter().map(|step| step.number.to_string()).collect();
    let keep = if numbers.is_empty() {
        "none".to_owned()
    } else {
        numbers.join(",")
    };
    println!(
        "run it again: {} --keep {keep} --trace",
        arguments.command(shrunk.plan.seed)
    );
}
