//! What the engine must be told.

use std::time::Duration;

use crate::BusError;

/// The variable that points at an emulator. Its name is Google's; the client library does not know it.
pub const EMULATOR_VARIABLE: &str = "PUBSUB_EMULATOR_HOST";

/// What a topic's retention may be. *Source*: Pub/Sub, `Topic.message_retention_duration`: 10 minutes to 31 days.
const RETENTION: std::ops::RangeInclusive<Duration> = Duration::from_secs(600)..=Duration::from_secs(31 * 86_400);

/// *Source*: Pub/Sub, `Subscription.ack_deadline_seconds`.
const ACK_DEADLINE: std::ops::RangeInclusive<Duration> = Duration::from_secs(10)..=Duration::from_secs(600);

/// The same of drains' subscriptions, whatever is set: short, because who reads one next waits twice as long for what the last one had, so that order is kept.
pub(super) const DURABLE_ACK_DEADLINE: Duration = Duration::from_secs(10);

/// At the emulator it takes longer: what an ended stream had is handed to it again, for some rounds.
pub(super) const EMULATED_ACK_DEADLINE: Duration = Duration::from_secs(30);

/// Bytes that publishers may have on their way. The client library's own queue has no bound.
const IN_FLIGHT_BYTES: usize = 64 << 20;

/// What the engine must be told.
#[derive(Clone, Debug)]
pub struct PubSubSettings {
    /// The Google Cloud projects that hold the topics: one, or more for more than 10,000 apps. Every process that meets on this bus is given the same.
    pub projects: Vec<String>,
    /// `HOST:PORT` of an emulator. `None`: Google's service, with the credentials found the standard way.
    pub emulator: Option<String>,
    /// This process among those that read the project: no two that live at once may share it, and one that starts again should keep it, so that it finds what
    /// it left behind.
    pub replica: String,
    /// How long a topic keeps what was published to it.
    pub retention: Duration,
    /// How often a reader looks whether its subscription is still attached to its topic (rule 22), and, where there are several projects, a process where apps are.
    pub check_interval: Duration,
    /// A message that was handed out and neither settled nor extended comes again after this: 10 s to 10 minutes.
    pub ack_deadline: Duration,
    /// Bytes that publishers may have on their way; more wait their turn.
    pub in_flight_bytes: usize,
    /// Whether what is published is compressed, where that pays. What is read may be either.
    pub compression: bool,
}

impl PubSubSettings {
    /// Of one project; keeps a day, at the emulator that `PUBSUB_EMULATOR_HOST` names, or else at Google.
    pub fn new(project: impl Into<String>, replica: impl Into<String>) -> Self {
        Self::over(vec![project.into()], replica)
    }

    /// The same of several projects.
    pub fn over(projects: Vec<String>, replica: impl Into<String>) -> Self {
        let emulator = std::env::var(EMULATOR_VARIABLE).ok().filter(|host| !host.is_empty());
        Self {
            projects,
            emulator,
            replica: replica.into(),
            retention: Duration::from_secs(86_400),
            check_interval: Duration::from_secs(60),
            ack_deadline: Duration::from_secs(60),
            in_flight_bytes: IN_FLIGHT_BYTES,
            compression: true,
        }
    }

    /// What cannot be meant. The emulator checks little of it, the service all.
    pub(super) fn check(&self) -> Result<(), BusError> {
        let wrong = |what: String| Err(BusError::Settings(what));
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | ':' | '.');
        if self.projects.is_empty() {
            return wrong("no Google Cloud project: give one such as my-project".to_owned());
        }
        for (at, project) in self.projects.iter().enumerate() {
            if project.is_empty() || project.len() > 100 || !project.chars().all(plain) {
                return wrong(format!(
                    "{project:?} is not a Google Cloud project's id: give one such as my-project"
                ));
            }
            if self.projects[..at].contains(project) {
                return wrong(format!("the project {project} is given twice"));
            }
        }
        if !RETENTION.contains(&self.retention) {
            return wrong(format!(
                "Pub/Sub keeps messages for 10 minutes to 31 days, not for {} s",
                self.retention.as_secs()
            ));
        }
        if !ACK_DEADLINE.contains(&self.ack_deadline) {
            return wrong(format!(
                "Pub/Sub's ack deadline is 10 to 600 s, not {} s",
                self.ack_deadline.as_secs()
            ));
        }
        match &self.emulator {
            Some(host) if host.contains('/') || !host.contains(':') => {
                wrong(format!("{EMULATOR_VARIABLE}={host}: give HOST:PORT"))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_service_would_refuse_is_refused_before_it_is_asked() {
        let good = PubSubSettings {
            emulator: Some("127.0.0.1:8085".to_owned()),
            ..PubSubSettings::new("my-project", "r")
        };
        assert!(good.check().is_ok());
        for wrong in [
            PubSubSettings {
                projects: Vec::new(),
                ..good.clone()
            },
            PubSubSettings {
                projects: vec![String::new()],
                ..good.clone()
            },
            PubSubSettings {
                projects: vec!["My Project".to_owned()],
                ..good.clone()
            },
            PubSubSettings {
                projects: ["one", "two", "one"].map(str::to_owned).into(),
                ..good.clone()
            },
            PubSubSettings {
                retention: Duration::from_secs(60),
                ..good.clone()
            },
            PubSubSettings {
                retention: Duration::from_secs(40 * 86_400),
                ..good.clone()
            },
            PubSubSettings {
                emulator: Some("http://127.0.0.1:1".to_owned()),
                ..good.clone()
            },
        ] {
            assert!(matches!(wrong.check(), Err(BusError::Settings(_))), "{wrong:?}");
        }
    }
}
