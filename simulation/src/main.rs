//! The command line: run a seed, many seeds, or the examples of known faults.

#![allow(clippy::disallowed_methods, reason = "it measures real time")]

mod arguments;
mod report;

use std::{
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use arguments::Arguments;
use clap::Parser;
use report::Totals;
use simulation::{
    known::KNOWN_FAULTS,
    plan::{self, Plan},
    run::{self, Report},
    shrink,
};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = if arguments.kinds {
        report::print_kinds();
        Ok(0)
    } else if arguments.known {
        run_known()
    } else {
        run_seeds(&arguments)
    };
    match done {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Runs the seeds. Returns how many broke a promise that no known fault explains.
fn run_seeds(arguments: &Arguments) -> anyhow::Result<u64> {
    let next = AtomicU64::new(arguments.seed);
    let totals = Mutex::new(Totals::default());
    let started = Instant::now();
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            let is_over = arguments.until_failure && totals.lock().is_ok_and(|totals| totals.failing() > 0);
            if is_over || seed >= arguments.seed + arguments.seeds {
                return anyhow::Ok(());
            }
            run_seed(arguments, seed, &totals)?;
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
    if arguments.coverage {
        totals.print_coverage()?;
    }
    Ok(totals.failing())
}

fn run_seed(arguments: &Arguments, seed: u64, totals: &Mutex<Totals>) -> anyhow::Result<()> {
    let mut plan = plan::generate(seed, &arguments.options());
    if arguments.keeps_some() {
        plan.keep(&arguments.steps())?;
    }
    let started = Instant::now();
    let report = run::run(plan.clone())?;
    let took = started.elapsed();
    if arguments.twice {
        check_twice(&plan, &report)?;
    }
    let mut totals = totals.lock().unwrap_or_else(PoisonError::into_inner);
    totals.add(arguments, &plan, &report);
    report::print(arguments, &plan, &report, took);
    drop(totals);
    match report.outcome.violations.first() {
        Some(first) if arguments.shrink => {
            let rule = first.rule;
            let steps = plan.steps.len();
            let shrunk = shrink::shrink(plan, report, rule)?;
            report::print_shrunk(arguments, &shrunk, steps, rule);
        }
        _ => {}
    }
    Ok(())
}

/// Runs a plan again.
///
/// # Errors
/// Something else happens.
fn check_twice(plan: &Plan, report: &Report) -> anyhow::Result<()> {
    let again = run::run(plan.clone())?;
    if again.hash == report.hash {
        return Ok(());
    }
    let mut pairs = report.trace.iter().zip(&again.trace);
    let different = pairs.find(|(one, other)| one.to_string() != other.to_string());
    let (one, other) = different.map_or_else(Default::default, |(one, other)| (one.to_string(), other.to_string()));
    anyhow::bail!("seed {} has two traces:\n{one}\n{other}", plan.seed)
}

/// Runs the examples of known faults. Returns how many keep every promise.
fn run_known() -> anyhow::Result<u64> {
    let mut mended = 0;
    for fault in KNOWN_FAULTS {
        let report = run::run(fault.example())?;
        let mut violations = report.outcome.violations.iter();
        if violations.any(|violation| fault.rules.contains(&violation.rule)) {
            let (only, example) = (fault.example.only, fault.example);
            let only: Vec<_> = only.iter().map(|kind| kind.name()).collect();
            let only = if only.is_empty() {
                String::new()
            } else {
                format!(" --only {}", only.join(","))
            };
            println!(
                "{}: open; run it: cargo simulate --seed {}{only} --source {} --engine {} --shrink",
                fault.name,
                example.seed,
                example.source.name(),
                example.engine.name()
            );
        } else {
            println!(
                "{}: its example keeps every promise; remove it from known.rs",
                fault.name
            );
            mended += 1;
        }
    }
    Ok(mended)
}
