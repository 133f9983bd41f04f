//! The output of a container: writes each line on time, and lines of high rates in batches.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::time::Duration;

use system::clock::{since, steady};
use tokio::time::{sleep, sleep_until};

use super::container_log::{APPEND_BYTES, ContainerLog};
use super::line_template::{ContainerIdentity, LineTemplate};
use super::programs::ProgramRun;
use super::programs::event::ProgramEvent;
use crate::scenario::{ContainerPlan, LinePlan, Output};

/// Writes a container's output until its program exits, and returns the exit code. Silent and
/// endless programs never return.
///
/// *Cancel safety*: safe; only whole lines have been written.
pub(crate) async fn write_output(
    plan: &ContainerPlan,
    identity: &ContainerIdentity,
    seed: u64,
    instance: u32,
    log: &ContainerLog,
) -> i32 {
    match &plan.output {
        Output::Silent => std::future::pending().await,
        Output::Lines(lines) => {
            write_lines(lines, &LineTemplate::new(lines, identity), log).await;
            plan.exit_code
        }
        Output::Program(program, rate) => {
            let program = ProgramRun::new(*program, instance_seed(seed, identity, instance));
            run_program(program, *rate, log).await
        }
    }
}

async fn write_lines(plan: &LinePlan, template: &LineTemplate, log: &ContainerLog) {
    let end = if plan.lines == 0 { u64::MAX } else { plan.lines };
    let start = steady();
    let (mut seq, mut batches) = (0, 0_u64);
    while seq < end {
        let due = if plan.rate > 0.0 {
            due_lines(since(start), plan.rate).min(end)
        } else {
            end
        };
        if due > seq {
            seq = write_batch(template, seq, due, log);
            batches += 1;
            if batches % BATCHES_PER_PAUSE == 0 {
                // Lets time pass where it is virtual.
                sleep(Duration::from_millis(1)).await;
            } else {
                // Lets other containers and the readers run between batches.
                tokio::task::yield_now().await;
            }
        } else {
            let due_at = start + Duration::from_secs_f64(seq as f64 / plan.rate);
            sleep_until(due_at.max(steady() + min_pause(plan.rate))).await;
        }
    }
}

/// Writes lines `from..to`, or as many as fit one append. Returns the number of the next line.
fn write_batch(template: &LineTemplate, from: u64, to: u64, log: &ContainerLog) -> u64 {
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

/// Returns the number of lines due after `elapsed`; the first is due at once.
fn due_lines(elapsed: Duration, rate: f64) -> u64 {
    (elapsed.as_secs_f64() * rate) as u64 + 1
}

/// Up to 1000 lines per second every line has its own wake-up; above, batches every 2 ms cost less.
fn min_pause(rate: f64) -> Duration {
    if rate > 1000.0 {
        Duration::from_millis(2)
    } else {
        Duration::ZERO
    }
}

/// Batches of [`APPEND_BYTES`] that a container without a rate writes before it pauses: at most 8
/// GB/s.
const BATCHES_PER_PAUSE: u64 = 256;

/// A burst of more lines than this, such as a program's first one, causes no longer pause.
const MAX_PACED_LINES: usize = 3;

async fn run_program(mut program: ProgramRun, rate: f64, log: &ContainerLog) -> i32 {
    loop {
        match program.next_event() {
            ProgramEvent::Print(lines) => {
                for line in &lines {
                    log.append(|append| append.line(|out| out.extend_from_slice(line.as_bytes())));
                }
                let pause = program.pause() * lines.len().min(MAX_PACED_LINES) as f64 / rate;
                sleep(Duration::from_secs_f64(pause)).await;
            }
            ProgramEvent::Exit(code) => return code,
        }
    }
}

/// Derives the seed of a container instance.
fn instance_seed(seed: u64, identity: &ContainerIdentity, instance: u32) -> u64 {
    let mut hasher = DefaultHasher::new();
    (seed, &identity.namespace, &identity.pod, &identity.container, instance).hash(&mut hasher);
    hasher.finish()
}
