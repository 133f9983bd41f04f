//! The containers' side of the logs: writes each line at its own time, and loud output in batches.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::log::{APPEND_BYTES, Log};
use super::programs::{Script, Step};
use super::template::{Place, Template};
use crate::scenario::{ContainerPlan, LinePlan, Output};

/// Runs a container's program until it exits and returns its exit code; silent and endless ones never return.
///
/// *Cancel safety*: dropped at any await, what was written is whole lines.
pub(crate) async fn run(plan: &ContainerPlan, place: &Place, seed: u64, instance: u32, log: &Log) -> i32 {
    match &plan.output {
        Output::Silent => std::future::pending().await,
        Output::Lines(lines) => {
            write_lines(lines, &Template::new(lines, place), log).await;
            plan.exit_code
        }
        Output::Program(program, rate) => {
            let script = Script::new(*program, mix(seed, place, instance));
            write_script(script, *rate, log).await
        }
    }
}

async fn write_lines(plan: &LinePlan, template: &Template, log: &Log) {
    let end = if plan.lines == 0 { u64::MAX } else { plan.lines };
    let start = Instant::now();
    let mut seq = 0;
    while seq < end {
        let due = if plan.rate > 0.0 {
            due_lines(start.elapsed(), plan.rate).min(end)
        } else {
            end
        };
        if due > seq {
            seq = write_batch(template, seq, due, log);
            // Other containers, and the readers, run between two batches.
            tokio::task::yield_now().await;
        } else {
            let own_time = start + Duration::from_secs_f64(seq as f64 / plan.rate);
            sleep_until(own_time.max(Instant::now() + least_pause(plan.rate))).await;
        }
    }
}

/// Writes lines `from..to`, or as many of them as fit one append; returns the next.
fn write_batch(template: &Template, from: u64, to: u64, log: &Log) -> u64 {
    let mut seq = from;
    log.append(|append| {
        let mut widest = 0;
        while seq < to && append.len() + widest <= APPEND_BYTES {
            let before = append.len();
            if template.is_stderr(seq) {
                append.stderr();
            }
            append.line(|out| template.write(seq, out));
            widest = append.len() - before;
            seq += 1;
        }
    });
    seq
}

/// Returns how many lines are due after `elapsed`: the first at once.
fn due_lines(elapsed: Duration, rate: f64) -> u64 {
    (elapsed.as_secs_f64() * rate) as u64 + 1
}

/// Below 1000 lines a second each line has its own wake-up; above, a batch every 2 ms costs less.
fn least_pause(rate: f64) -> Duration {
    if rate > 1000.0 {
        Duration::from_millis(2)
    } else {
        Duration::ZERO
    }
}

/// A burst of more lines than this, such as a program's first one, causes no longer pause.
const MAX_PACED_LINES: usize = 3;

async fn write_script(mut script: Script, rate: f64, log: &Log) -> i32 {
    loop {
        match script.step() {
            Step::Print(lines) => {
                for line in &lines {
                    log.append(|append| append.line(|out| out.extend_from_slice(line.as_bytes())));
                }
                let pause = script.pause() * lines.len().min(MAX_PACED_LINES) as f64 / rate;
                sleep(Duration::from_secs_f64(pause)).await;
            }
            Step::Exit(code) => return code,
        }
    }
}

/// One seed per container instance.
fn mix(seed: u64, place: &Place, instance: u32) -> u64 {
    let mut hasher = DefaultHasher::new();
    (seed, &place.namespace, &place.pod, &place.container, instance).hash(&mut hasher);
    hasher.finish()
}
