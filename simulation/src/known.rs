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
        name: "new-instance-in-old-stream",
        what: "while pod status lags, a container that restarts several times within the lag joins the stream of an earlier instance if those between print nothing",
        rules: &[Rule::Repeat],
        kinds: &[Kind::StatusLag],
        source: Some(Source::Api),
        engine: None,
        example: Example {
            seed: 545,
            only: &[Kind::StatusLag, Kind::Exit],
            source: Source::Api,
            engine: Engine::Embedded,
        },
    },
    KnownFault {
        name: "repeats-before-their-notice",
        what: "when the bus delivers out of order, the first lines of a new stream reach a tail before the notice that they may be repeated",
        rules: &[Rule::Repeat],
        kinds: &[Kind::Damage, Kind::PowerLoss, Kind::DiskFull, Kind::DiskRefuses],
        source: None,
        engine: Some(Engine::PubSub),
        example: Example {
            seed: 11,
            only: &[Kind::Damage, Kind::BusDisorder],
            source: Source::Files,
            engine: Engine::PubSub,
        },
    },
    KnownFault {
        name: "skipped-files-misplaced",
        what: "a gap is declared where a follow was stalled, but files were skipped within what it then delivered, if no probe had an answer",
        rules: &[Rule::SilentLoss],
        kinds: &[Kind::StallFollows],
        source: Some(Source::Api),
        engine: None,
        example: Example {
            seed: 41,
            only: &[Kind::StallFollows, Kind::StallRequests],
            source: Source::Api,
            engine: Engine::PubSub,
        },
    },
    KnownFault {
        name: "delivered-lines-of-a-removed-segment",
        what: "lines of a segment of the bus that was removed are declared to a client that has them",
        rules: &[Rule::FalseGap],
        kinds: &[Kind::Damage],
        source: None,
        engine: Some(Engine::Embedded),
        example: Example {
            seed: 2_000_597,
            only: &[],
            source: Source::Api,
            engine: Engine::Embedded,
        },
    },
    KnownFault {
        name: "removed-log-after-restart",
        what: "after a restart, what a container prints into a log file that was removed by hand is declared before it is printed: a tail that begins between sees no notice",
        rules: &[Rule::SilentLoss],
        kinds: &[Kind::RemoveLog],
        source: Some(Source::Files),
        engine: None,
        example: Example {
            seed: 79,
            only: &[Kind::RemoveLog, Kind::Kill],
            source: Source::Files,
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
