//! What happens in a simulation: generated from a seed as data, so that a failing plan can be made
//! smaller and run again.

mod action;
mod fault;
mod generate;

use std::time::Duration;

pub use action::{APPS, Action, Step, TailFormat};
pub use fault::{Damage, Fault, Kill, Kind, StateFile, Target};
pub use generate::{Options, generate};

/// Size at which logs are rotated if they are not [`Kind::SmallLogs`]: the kubelet's default.
pub const LARGE_LOG: u64 = 10 << 20;

/// How the collector reads containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The Kubernetes log API.
    Api,
    /// The node's log files.
    Files,
}

impl Source {
    /// Returns the name in traces and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Files => "files",
        }
    }
}

/// Which bus carries the lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// The embedded bus: all services in one process.
    Embedded,
    /// The model of Pub/Sub: collector, streamers and sinks are processes of their own.
    PubSub,
}

impl Engine {
    /// Returns the name in traces and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::PubSub => "pubsub",
        }
    }
}

/// Where drains are kept if several processes share the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SharedRegistry {
    /// A file on a disk that all replicas mount.
    File,
    /// Secrets of the Kubernetes API.
    Kubernetes,
}

/// A container that prints.
#[derive(Clone, Debug)]
pub struct ContainerPlan {
    /// Index of its app.
    pub app: usize,
    /// The pod.
    pub pod: String,
    /// The container.
    pub name: String,
    /// Time between two prints.
    pub every: Duration,
    /// Lines a print.
    pub lines: u32,
    /// Bytes a line.
    pub bytes: u32,
    /// Of so many lines, one goes to standard error; 0: none.
    pub stderr_every: u32,
}

/// Everything that a simulation does.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The seed.
    pub seed: u64,
    /// How long things happen. Afterwards everything must become quiet.
    pub duration: Duration,
    /// How the collector reads.
    pub source: Source,
    /// The bus.
    pub engine: Engine,
    /// Where drains are kept, unless all services are one process.
    pub registry: SharedRegistry,
    /// Whether the drain leads to a proxy in front of its receiver.
    pub has_proxy: bool,
    /// Names of the apps.
    pub apps: Vec<String>,
    /// The containers at the start.
    pub containers: Vec<ContainerPlan>,
    /// The kubelet rotates a log at this size.
    pub rotate_bytes: u64,
    /// How many files of a container the kubelet keeps.
    pub rotate_files: usize,
    /// What happens, in order of time.
    pub steps: Vec<Step>,
}

impl Plan {
    /// Keeps only the steps with these numbers.
    ///
    /// # Errors
    /// The plan has no step of a number.
    pub fn keep(&mut self, numbers: &[usize]) -> anyhow::Result<()> {
        let unknown = numbers
            .iter()
            .find(|number| self.steps.iter().all(|step| step.number != **number));
        if let Some(unknown) = unknown {
            anyhow::bail!(
                "no step {unknown}: the plan has steps 0 to {}",
                self.steps.len().saturating_sub(1)
            );
        }
        self.steps.retain(|step| numbers.contains(&step.number));
        Ok(())
    }

    /// Returns the kinds of what happens in the plan.
    pub fn kinds(&self) -> Vec<Kind> {
        let mut kinds: Vec<_> = self.steps.iter().filter_map(|step| step.action.kind()).collect();
        if self.rotate_bytes < LARGE_LOG {
            kinds.push(Kind::SmallLogs);
        }
        kinds.sort_unstable();
        kinds.dedup();
        kinds
    }
}
