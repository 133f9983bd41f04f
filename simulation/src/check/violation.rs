//! Broken promises.

use std::fmt;

/// A promise that can be broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// Lines are missing, and no gap notice says so.
    SilentLoss,
    /// A gap notice is about lines that were delivered, or about none.
    FalseGap,
    /// Lines are declared as not delivered by a bus that has lost none.
    Undelivered,
    /// The count of a gap notice is not the number of missing lines.
    WrongCount,
    /// A line was delivered again under another number.
    Repeat,
    /// One number names two lines.
    NumberReused,
    /// Lines of a stream are out of order.
    Order,
    /// The time, the process or another field of a line is not that of the line.
    WrongField,
    /// A text that no container printed.
    Invented,
    /// A line of another app.
    OtherApp,
    /// Not everything arrived after the faults ended.
    NotCaughtUp,
    /// A service is not ready after the faults ended.
    NotReady,
    /// A service ended or failed to start.
    ServiceFailed,
    /// Code panicked.
    Panic,
    /// A counter does not tell what happened.
    WrongMetric,
    /// Files or connections of the past are left.
    LeftBehind,
    /// Virtual time stood still, the work per second never fell, or idle services ask too much.
    Busy,
}

impl Rule {
    /// All rules.
    pub const ALL: &[Self] = &[
        Self::SilentLoss,
        Self::FalseGap,
        Self::Undelivered,
        Self::WrongCount,
        Self::Repeat,
        Self::NumberReused,
        Self::Order,
        Self::WrongField,
        Self::Invented,
        Self::OtherApp,
        Self::NotCaughtUp,
        Self::NotReady,
        Self::ServiceFailed,
        Self::Panic,
        Self::WrongMetric,
        Self::LeftBehind,
        Self::Busy,
    ];

    /// Returns the name in traces and in the list of known faults.
    pub fn name(self) -> &'static str {
        match self {
            Self::SilentLoss => "silent-loss",
            Self::FalseGap => "false-gap",
            Self::Undelivered => "undelivered",
            Self::WrongCount => "wrong-count",
            Self::Repeat => "repeat",
            Self::NumberReused => "number-reused",
            Self::Order => "order",
            Self::WrongField => "wrong-field",
            Self::Invented => "invented-line",
            Self::OtherApp => "other-app",
            Self::NotCaughtUp => "not-caught-up",
            Self::NotReady => "not-ready",
            Self::ServiceFailed => "service-failed",
            Self::Panic => "panic",
            Self::WrongMetric => "wrong-metric",
            Self::LeftBehind => "left-behind",
            Self::Busy => "busy",
        }
    }
}

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The promise.
    pub rule: Rule,
    /// Who saw it: a tail, a drain, a service.
    pub observer: String,
    /// What exactly.
    pub detail: String,
}

impl Violation {
    /// Creates a violation.
    pub fn new(rule: Rule, observer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self {
            rule,
            observer: observer.into(),
            detail: detail.into(),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.rule.name(), self.observer, self.detail)
    }
}

/// Keeps the first few violations of each rule: one fault can break a promise for every line.
pub fn limit(violations: &mut Vec<Violation>) {
    let all = std::mem::take(violations);
    for violation in all {
        let same = violations.iter().filter(|known| known.rule == violation.rule);
        if same.count() < MAX_PER_RULE {
            violations.push(violation);
        }
    }
}

/// How many violations of one rule are kept.
const MAX_PER_RULE: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_explains_every_rule() {
        let readme = include_str!("../../README.md");
        for rule in Rule::ALL {
            assert!(readme.contains(&format!("`{}`", rule.name())), "{}", rule.name());
        }
    }
}
