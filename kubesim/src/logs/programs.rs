//! Built-in programs: realistic output of a web application, a worker and a crashing process.
//!
//! Output depends on the seed only. A program prints bursts of one or more lines.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use event::ProgramEvent;

use crate::scenario::Program;

mod crash;
pub(crate) mod event;
mod random;
mod web;
mod worker;

/// A running program.
pub(crate) struct ProgramRun {
    program: Program,
    random: StdRng,
    burst: u64,
}

impl ProgramRun {
    /// Starts a program; the same seed prints the same lines.
    pub(crate) fn new(program: Program, seed: u64) -> Self {
        Self {
            program,
            random: StdRng::seed_from_u64(seed),
            burst: 0,
        }
    }

    /// Returns the next event.
    pub(crate) fn next_event(&mut self) -> ProgramEvent {
        let burst = self.burst;
        self.burst += 1;
        match self.program {
            Program::Web => ProgramEvent::Print(web::burst(&mut self.random, burst)),
            Program::Worker => ProgramEvent::Print(worker::burst(&mut self.random, burst)),
            Program::Crash => crash::next_event(&mut self.random, burst),
        }
    }

    /// Returns the pause before the next burst in units of the mean interval: exponentially
    /// distributed, at most 5.
    pub(crate) fn pause(&mut self) -> f64 {
        let uniform: f64 = self.random.random_range(0.0001..1.0);
        (-uniform.ln()).min(5.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_determines_the_output_of_a_program() {
        for program in [Program::Web, Program::Worker, Program::Crash] {
            let print = |seed| {
                let mut program = ProgramRun::new(program, seed);
                let mut lines = Vec::new();
                for _ in 0..40 {
                    match program.next_event() {
                        ProgramEvent::Print(more) => lines.extend(more),
                        ProgramEvent::Exit(_) => break,
                    }
                }
                lines
            };
            assert_eq!(print(1), print(1));
            assert_ne!(print(1), print(2));
            assert!(print(1).iter().all(|line| !line.contains('\n')));
        }
    }
}
