//! Faults of the product that are known and not mended yet.
//!
//! Each has a plan that shows it: `--known` runs all of them, and reports one that keeps every
//! promise, because its entry must go. `--avoid` leaves out the kinds of faults that show it, so
//! that the most frequent ones do not hide the others.

use crate::{
    check::{Rule, Violation},
    plan::{self, Engine, Kind, Options, Plan, Source},
};

/// A known fault.
#[derive(Clone, Copy, Debug)]
pub struct KnownFault {
    /// The name.
    pub name: &'static str,
    /// What goes wrong.
    pub what: &'static str,
    /// The promises that it breaks.
    pub rules: &'static [Rule],
    /// It shows only in plans with one of these kinds.
    pub kinds: &'static [Kind],
    /// It shows only with this source.
    pub source: Option<Source>,
    /// It shows only on this bus.
    pub engine: Option<Engine>,
    /// A plan that shows it.
    pub example: Example,
}

/// A plan as arguments of the command line.
#[derive(Clone, Copy, Debug)]
pub struct Example {
    /// The seed.
    pub seed: u64,
    /// The only kinds of faults, if not all.
    pub only: &'static [Kind],
    /// The source.
    pub source: Source,
    /// The bus.
    pub engine: Engine,
}

/// All known faults.
pub const KNOWN_FAULTS: &[KnownFault] = &[
    KnownFault {
        name: "lines-lost-after-absence",
        what: "the first lines of a container are lost silently if its log was rotated before its status was reported, or until it prints or ends",
        rules: &[Rule::SilentLoss, Rule::NotCaughtUp],
        kinds: &[
            Kind::Kill,
            Kind::KillAtStep,
            Kind::Shutdown,
            Kind::ApiDown,
            Kind::KubeletDown,
            Kind::RuntimeDown,
            Kind::StallRequests,
            Kind::MuteWatches,
            Kind::SlowLogs,
            Kind::ApiBusy,
            Kind::StatusLag,
            Kind::DiskSlow,
        ],
        source: Some(Source::Api),
        engine: None,
        example: Example {
            seed: 175,
            only: &[Kind::Kill, Kind::KillAtStep, Kind::Shutdown],
            source: Source::Api,
            engine: Engine::Embedded,
        },
    },
    KnownFault {
        name: "lines-lost-after-power-loss",
        what: "after a loss of power, lines of a container that ended or was rotated meanwhile are lost silently; a tail with history sees lines repeated without the notice of the new stream, or before earlier ones",
        rules: &[Rule::SilentLoss, Rule::Repeat, Rule::Order],
        kinds: &[Kind::PowerLoss],
        source: None,
        engine: None,
        example: Example {
            seed: 75,
            only: &[Kind::PowerLoss],
            source: Source::Api,
            engine: Engine::Embedded,
        },
    },
    KnownFault {
        name: "damaged-state-seen-by-readers",
        what: "history shows repeated lines without the notice of the new stream; lines of a damaged segment are declared as undelivered although a tail had them",
        rules: &[
            Rule::SilentLoss,
            Rule::FalseGap,
            Rule::WrongCount,
            Rule::Repeat,
            Rule::Order,
        ],
        kinds: &[Kind::Damage, Kind::DiskFull, Kind::DiskRefuses],
        source: None,
        engine: None,
        example: Example {
            seed: 1,
            only: &[Kind::Damage],
            source: Source::Files,
            engine: Engine::Embedded,
        },
    },
    KnownFault {
        name: "new-instance-in-old-stream",
        what: "while pod status lags, a container that restarts twice within the lag joins the stream of the instance between",
        rules: &[Rule::Repeat],
        kinds: &[Kind::StatusLag],
        source: Some(Source::Api),
        engine: None,
        example: Example {
            seed: 133,
            only: &[Kind::StatusLag],
            source: Source::Api,
            engine: Engine::Embedded,
        },
    },
    KnownFault {
        name: "rotations-during-stall",
        what: "files that were rotated while a follow was stalled are skipped silently, until the container prints or ends",
        rules: &[Rule::SilentLoss],
        kinds: &[Kind::StallFollows, Kind::StrandFollows],
        source: Some(Source::Api),
        engine: None,
        example: Example {
            seed: 19,
            only: &[Kind::StrandFollows],
            source: Source::Api,
            engine: Engine::Embedded,
        },
    },
    KnownFault {
        name: "late-without-notice",
        what: "after the clock of the services went back and a restart, a tail gets lines from before it began, marked late",
        rules: &[Rule::WrongField],
        kinds: &[Kind::ServerClock],
        source: None,
        engine: Some(Engine::Embedded),
        example: Example {
            seed: 68,
            only: &[],
            source: Source::Api,
            engine: Engine::Embedded,
        },
    },
    KnownFault {
        name: "spool-given-up",
        what: "spooled lines are given up, and not counted, if their file cannot be opened for a moment",
        rules: &[Rule::WrongMetric],
        kinds: &[Kind::NoDescriptors],
        source: None,
        engine: None,
        example: Example {
            seed: 6,
            only: &[Kind::NoDescriptors, Kind::DiskSlow],
            source: Source::Api,
            engine: Engine::Embedded,
        },
    },
];

impl KnownFault {
    /// Returns the fault of this name.
    pub fn parse(name: &str) -> Option<&'static Self> {
        KNOWN_FAULTS.iter().find(|fault| fault.name == name)
    }

    /// Returns whether plans with this source and bus can show it.
    pub fn applies_to(&self, source: Source, engine: Engine) -> bool {
        self.source.is_none_or(|only| only == source) && self.engine.is_none_or(|only| only == engine)
    }

    /// Returns whether it can be the cause of a violation in a plan.
    pub fn explains(&self, violation: &Violation, plan: &Plan) -> bool {
        let has_kind = plan.kinds().iter().any(|kind| self.kinds.contains(kind));
        self.applies_to(plan.source, plan.engine) && has_kind && self.rules.contains(&violation.rule)
    }

    /// Returns the plan that shows it.
    pub fn example(&self) -> Plan {
        let options = Options {
            only: self.example.only.to_vec(),
            source: Some(self.example.source),
            engine: Some(self.example.engine),
            ..Options::default()
        };
        plan::generate(self.example.seed, &options)
    }
}

/// Returns the names of known faults that can be the cause of every violation of a plan; empty if
/// one has another cause.
pub fn explain(violations: &[Violation], plan: &Plan) -> Vec<&'static str> {
    let mut names = Vec::new();
    for violation in violations {
        let causes = KNOWN_FAULTS.iter().filter(|fault| fault.explains(violation, plan));
        let before = names.len();
        names.extend(causes.map(|fault| fault.name));
        if names.len() == before {
            return Vec::new();
        }
    }
    names.sort_unstable();
    names.dedup();
    names
}
