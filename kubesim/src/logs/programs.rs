//! The built-in programs of the demo: what a web application, a worker and a crashing process print.
//!
//! Content follows from the seed alone; a program prints bursts, each of one or more lines.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use crate::scenario::Program;

mod crash;
mod web;
mod worker;

/// A running program.
pub(crate) struct Script {
    program: Program,
    random: StdRng,
    burst: u64,
}

/// What a program does next.
pub(crate) enum Step {
    /// Prints these lines at once.
    Print(Vec<String>),
    /// Exits with this code.
    Exit(i32),
}

impl Script {
    /// Starts a program; the same seed prints the same lines.
    pub(crate) fn new(program: Program, seed: u64) -> Self {
        Self {
            program,
            random: StdRng::seed_from_u64(seed),
            burst: 0,
        }
    }

    /// Returns the next burst.
    pub(crate) fn step(&mut self) -> Step {
        let burst = self.burst;
        self.burst += 1;
        match self.program {
            Program::Web => Step::Print(web::burst(&mut self.random, burst)),
            Program::Worker => Step::Print(worker::burst(&mut self.random, burst)),
            Program::Crash => crash::step(&mut self.random, burst),
        }
    }

    /// Returns how much of the mean interval passes before the next burst: around 1, now and then much more.
    pub(crate) fn pause(&mut self) -> f64 {
        let uniform: f64 = self.random.random_range(0.0001..1.0);
        (-uniform.ln()).min(5.0)
    }
}

fn pick<'a>(random: &mut StdRng, from: &[&'a str]) -> &'a str {
    from.choose(random).copied().unwrap_or_default()
}

/// A request id as Phoenix and Heroku print them.
fn request_id(random: &mut StdRng) -> String {
    (0..20)
        .map(|_| char::from(*ID_LETTERS.choose(random).unwrap_or(&b'A')))
        .collect()
}

const ID_LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_decides_what_a_program_prints() {
        for program in [Program::Web, Program::Worker, Program::Crash] {
            let print = |seed| {
                let mut script = Script::new(program, seed);
                let mut lines = Vec::new();
                for _ in 0..40 {
                    match script.step() {
                        Step::Print(more) => lines.extend(more),
                        Step::Exit(_) => break,
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
