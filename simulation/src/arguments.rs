//! The arguments of the command line.

use std::time::Duration;

use clap::Parser;
use simulation::{
    known::{KNOWN_FAULTS, KnownFault},
    plan::{Engine, Kind, Options, Source},
};

/// Run simulations and report broken promises
///
/// Examples: `cargo simulate --seed 42 --trace` runs one seed and prints what happened;
/// `cargo simulate --seeds 1000 --jobs 2` runs a thousand.
#[derive(Parser)]
pub struct Arguments {
    /// The first seed
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// How many seeds, one after the other
    #[arg(long, default_value_t = 1)]
    pub seeds: u64,
    /// How many seeds at the same time
    #[arg(long, default_value_t = 1)]
    pub jobs: usize,
    /// How long things happen in each, such as `2m`
    #[arg(long, value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
    /// Kinds of faults to leave out
    #[arg(long, value_delimiter = ',', value_parser = parse_kind)]
    without: Vec<Kind>,
    /// The only kinds of faults
    #[arg(long, value_delimiter = ',', value_parser = parse_kind)]
    only: Vec<Kind>,
    /// Known faults whose kinds of faults are left out, or `all`
    #[arg(long, value_delimiter = ',', value_parser = parse_known)]
    avoid: Vec<Avoid>,
    /// Run the examples of all known faults; fail if one keeps every promise
    #[arg(long)]
    pub known: bool,
    /// Numbers of the only steps of the plan to carry out, or `none`
    #[arg(long, value_delimiter = ',', value_parser = parse_step)]
    pub keep: Vec<usize>,
    /// `api` or `files`
    #[arg(long, value_parser = parse_source)]
    source: Option<Source>,
    /// `embedded` or `pubsub`
    #[arg(long, value_parser = parse_engine)]
    engine: Option<Engine>,
    /// The number of containers
    #[arg(long)]
    containers: Option<usize>,
    /// Print the plan and what happened
    #[arg(long)]
    pub trace: bool,
    /// Leave out steps of a failing plan while it still fails
    #[arg(long)]
    pub shrink: bool,
    /// Print only seeds that break a promise
    #[arg(long)]
    pub quiet: bool,
    /// End with the first seed that breaks a promise
    #[arg(long)]
    pub until_failure: bool,
    /// Run each seed twice and compare the traces
    #[arg(long)]
    pub twice: bool,
    /// Print which notices and rare branches were reached
    #[arg(long)]
    pub coverage: bool,
}

impl Arguments {
    /// Returns the choices for plans.
    pub fn options(&self) -> Options {
        Options {
            duration: self.duration,
            without: self.without.clone(),
            only: self.only.clone(),
            source: self.source,
            engine: self.engine,
            containers: self.containers,
            avoid: self.avoid.iter().flat_map(|avoid| avoid.0).collect(),
        }
    }

    /// Returns the command that generates the plan of a seed.
    pub fn command(&self, seed: u64) -> String {
        let kinds = |flag: &str, kinds: &[Kind]| {
            let names: Vec<_> = kinds.iter().map(|kind| kind.name()).collect();
            (!names.is_empty()).then(|| format!("--{flag} {}", names.join(",")))
        };
        let avoided: Vec<_> = self
            .avoid
            .iter()
            .flat_map(|avoid| avoid.0)
            .map(|fault| fault.name)
            .collect();
        let source = self.source.map(|source| format!("--source {}", source.name()));
        let engine = self.engine.map(|engine| format!("--engine {}", engine.name()));
        let duration = self.duration.map(|time| {
            format!(
                "--duration {}",
                humantime::format_duration(time).to_string().replace(' ', "")
            )
        });
        let containers = self.containers.map(|count| format!("--containers {count}"));
        let parts = [
            Some(format!("cargo simulate --seed {seed}")),
            duration,
            kinds("without", &self.without),
            kinds("only", &self.only),
            (!avoided.is_empty()).then(|| format!("--avoid {}", avoided.join(","))),
            source,
            engine,
            containers,
        ];
        parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
    }
}

fn parse_kind(name: &str) -> Result<Kind, String> {
    let names: Vec<_> = Kind::ALL.iter().map(|kind| kind.name()).collect();
    Kind::parse(name).ok_or_else(|| format!("unknown kind of fault; use one of {}", names.join(", ")))
}

/// Known faults to avoid.
#[derive(Clone, Copy)]
struct Avoid(&'static [KnownFault]);

fn parse_known(name: &str) -> Result<Avoid, String> {
    if name == "all" {
        return Ok(Avoid(KNOWN_FAULTS));
    }
    let found = KnownFault::parse(name).map(|fault| Avoid(std::slice::from_ref(fault)));
    let names: Vec<_> = KNOWN_FAULTS.iter().map(|fault| fault.name).collect();
    found.ok_or_else(|| format!("unknown fault; use all, or some of {}", names.join(", ")))
}

/// Parses the number of a step. No step has the number of `none`.
fn parse_step(text: &str) -> Result<usize, String> {
    match text {
        "none" => Ok(usize::MAX),
        _ => text
            .parse()
            .map_err(|_| "expected the number of a step, or none".to_owned()),
    }
}

fn parse_source(name: &str) -> Result<Source, &'static str> {
    match name {
        "api" => Ok(Source::Api),
        "files" => Ok(Source::Files),
        _ => Err("expected api or files"),
    }
}

fn parse_engine(name: &str) -> Result<Engine, &'static str> {
    match name {
        "embedded" => Ok(Engine::Embedded),
        "pubsub" => Ok(Engine::PubSub),
        _ => Err("expected embedded or pubsub"),
    }
}
