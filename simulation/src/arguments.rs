//! The arguments of the command line.

use std::time::Duration;

use clap::{Parser, value_parser};
use simulation::{
    known::{KNOWN_FAULTS, KnownFault},
    plan::{Engine, Kind, Options, Source},
};

/// Simulate the data path with faults from seeds, and report broken promises
///
/// Examples: `cargo simulate --seed 42 --trace` runs one seed and prints what happened;
/// `cargo simulate --seeds 1000 --jobs 2` runs a thousand. simulation/README.md explains the output.
#[derive(Parser)]
pub struct Arguments {
    /// Begin with this seed
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    pub seed: u64,
    /// Run this many consecutive seeds
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = value_parser!(u64).range(1..))]
    pub seeds: u64,
    /// Run this many seeds in parallel
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = value_parser!(u64).range(1..=256))]
    pub jobs: u64,
    /// Inject faults for this long, such as `2m` [default: 40 s to 2 minutes, from the seed]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
    /// Leave out these kinds of faults
    #[arg(long, value_name = "KIND", value_delimiter = ',', value_parser = parse_kind)]
    without: Vec<Kind>,
    /// Inject only these kinds of faults
    #[arg(long, value_name = "KIND", value_delimiter = ',', value_parser = parse_kind)]
    only: Vec<Kind>,
    /// Leave out the kinds of faults that show these known faults of the product, or `all`
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = parse_known)]
    avoid: Vec<Avoid>,
    /// Run the example of each known fault of the product; fail if one keeps every promise
    #[arg(long, exclusive = true)]
    pub known: bool,
    /// List the kinds of faults
    #[arg(long, exclusive = true)]
    pub kinds: bool,
    /// Carry out only these steps of the plan, or `none`
    #[arg(long, value_name = "NUMBER", value_delimiter = ',', value_parser = parse_step)]
    keep: Vec<Option<usize>>,
    /// Read logs by `api` or `files` [default: from the seed]
    #[arg(long, value_parser = parse_source)]
    source: Option<Source>,
    /// Use the bus `embedded` or `pubsub` [default: from the seed]
    #[arg(long, value_parser = parse_engine)]
    engine: Option<Engine>,
    /// Run this many containers [default: 2 to 5, from the seed]
    #[arg(long, value_name = "COUNT", value_parser = value_parser!(u64).range(1..=100))]
    containers: Option<u64>,
    /// Print the plan and what happened
    #[arg(long)]
    pub trace: bool,
    /// Leave out steps of a failing plan while it still breaks the same promise, and print the trace
    #[arg(long)]
    pub shrink: bool,
    /// Print only seeds that break a promise for which no known fault accounts
    #[arg(long)]
    pub quiet: bool,
    /// Let known faults account for nothing
    #[arg(long)]
    pub strict: bool,
    /// Stop at the first such seed
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
            containers: self.containers.and_then(|count| usize::try_from(count).ok()),
            avoid: self.avoid.iter().flat_map(|avoid| avoid.0).collect(),
        }
    }

    /// Returns whether only some steps are carried out.
    pub fn keeps_some(&self) -> bool {
        !self.keep.is_empty()
    }

    /// Returns the numbers of the steps to carry out, if only some are.
    pub fn steps(&self) -> Vec<usize> {
        self.keep.iter().copied().flatten().collect()
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
    Kind::parse(name).ok_or_else(|| format!("unknown kind of fault; --kinds lists them: {}", names.join(", ")))
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
    found.ok_or_else(|| format!("unknown name; use all, or some of {}", names.join(", ")))
}

/// Parses the number of a step; `None` for `none`.
fn parse_step(text: &str) -> Result<Option<usize>, String> {
    match text {
        "none" => Ok(None),
        _ => text
            .parse()
            .map(Some)
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
