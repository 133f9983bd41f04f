//! The command line: run a seed, many seeds, or a failing seed made smaller.

mod arguments;

use std::{
    collections::BTreeMap,
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use arguments::Arguments;
use clap::Parser;
use simulation::{
    check::Rule,
    plan::{self, Plan},
    run::{self, Report},
    shrink,
};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match simulate(&arguments) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Totals of all seeds.
#[derive(Default)]
struct Totals {
    failing: u64,
    printed: usize,
    virtual_time: Duration,
    rules: BTreeMap<Rule, u64>,
}

/// Runs the seeds. Returns how many broke a promise.
fn simulate(arguments: &Arguments) -> anyhow::Result<u64> {
    let next = AtomicU64::new(arguments.seed);
    let totals = Mutex::new(Totals::default());
    let started = Instant::now();
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= arguments.seed + arguments.seeds {
                return anyhow::Ok(());
            }
            let mut plan = plan::generate(seed, &arguments.options());
            if !arguments.keep.is_empty() {
                plan.keep(&arguments.keep);
            }
            let started = Instant::now();
            let report = run::run(plan.clone())?;
            let took = started.elapsed();
            let mut totals = totals.lock().unwrap_or_else(PoisonError::into_inner);
            totals.add(&report);
            print(arguments, &plan, &report, took);
            drop(totals);
            if let (true, Some(first)) = (arguments.shrink, report.outcome.violations.first()) {
                let rule = first.rule;
                print_shrunk(arguments, plan, report, rule)?;
            }
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (1..arguments.jobs).map(|_| scope.spawn(work)).collect();
        work()?;
        for thread in threads {
            thread.join().map_err(|_| anyhow::anyhow!("a thread panicked"))??;
        }
        anyhow::Ok(())
    })?;
    let totals = totals.into_inner().unwrap_or_else(PoisonError::into_inner);
    if arguments.seeds > 1 {
        totals.print(arguments.seeds, started.elapsed());
    }
    Ok(totals.failing)
}

impl Totals {
    fn add(&mut self, report: &Report) {
        let mut rules: Vec<_> = report
            .outcome
            .violations
            .iter()
            .map(|violation| violation.rule)
            .collect();
        rules.sort_unstable();
        rules.dedup();
        self.failing += u64::from(!rules.is_empty());
        self.printed += report.outcome.printed;
        self.virtual_time += report.virtual_time;
        for rule in rules {
            *self.rules.entry(rule).or_default() += 1;
        }
    }

    fn print(&self, seeds: u64, took: Duration) {
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
    }
}

fn print(arguments: &Arguments, plan: &Plan, report: &Report, took: Duration) {
    let outcome = &report.outcome;
    let is_ok = outcome.violations.is_empty();
    if is_ok && arguments.quiet {
        return;
    }
    println!(
        "seed {}: {}, {:?}, {:.0} s in {:.2} s, {} lines printed, {} received, {} steps, trace {:016x}",
        plan.seed,
        if is_ok { "ok" } else { "FAILED" },
        plan.source,
        report.virtual_time.as_secs_f64(),
        took.as_secs_f64(),
        outcome.printed,
        outcome.received,
        plan.steps.len(),
        report.hash
    );
    if arguments.trace {
        print_trace(plan, report);
    }
    for violation in &outcome.violations {
        println!("  {violation}");
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

/// Makes a failing plan smaller and prints it with its trace, and how to run it again.
fn print_shrunk(arguments: &Arguments, plan: Plan, report: Report, rule: Rule) -> anyhow::Result<()> {
    let steps = plan.steps.len();
    let shrunk = shrink::shrink(plan, report, rule)?;
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
    // A plan without steps cannot be asked for; no step has this number.
    let keep = if numbers.is_empty() {
        "999999".to_owned()
    } else {
        numbers.join(",")
    };
    println!(
        "run it again: {} --keep {keep} --trace",
        arguments.command(shrunk.plan.seed)
    );
    Ok(())
}
