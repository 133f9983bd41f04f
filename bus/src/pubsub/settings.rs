//! Settings of the Pub/Sub engine.

use std::time::Duration;

use crate::BusError;

/// Environment variable with the address of an emulator. The name is Google's; the Rust client
/// library does not read it.
pub const EMULATOR_VARIABLE: &str = "PUBSUB_EMULATOR_HOST";

/// *Source*: Pub/Sub, `Topic.message_retention_duration`: 10 minutes to 31 days.
const RETENTION: std::ops::RangeInclusive<Duration> = Duration::from_secs(600)..=Duration::from_secs(31 * 86_400);

/// *Source*: Pub/Sub, `Subscription.ack_deadline_seconds`.
const ACK_DEADLINE: std::ops::RangeInclusive<Duration> = Duration::from_secs(10)..=Duration::from_secs(600);

/// Default maximum of bytes in flight. The client library's own queue is unbounded.
const IN_FLIGHT_BYTES: usize = 64 << 20;

/// Settings of the Pub/Sub engine.
#[derive(Clone, Debug)]
pub struct PubSubSettings {
    /// Ids of the Google Cloud projects that hold the topics: one, or more for more than 10,000
    /// apps. All processes on the bus need the same projects.
    pub projects: Vec<String>,
    /// `HOST:PORT` of an emulator. `None`: Google's service with application default credentials.
    pub emulator: Option<String>,
    /// Name of this process: unique among the processes on the bus, and kept across restarts, so
    /// that a process finds the subscriptions that it left behind.
    pub replica: String,
    /// How long topics store messages: 10 minutes to 31 days.
    pub retention: Duration,
    /// Interval at which a reader checks that its subscription is attached to its topic (delivery
    /// rule 22) and a process refreshes the projects of apps.
    pub check_interval: Duration,
    /// Ack deadline of temporary subscriptions: 10 s to 10 minutes.
    pub ack_deadline: Duration,
    /// Maximum bytes in flight of all publishers; further batches wait.
    pub in_flight_bytes: usize,
    /// Whether published data is compressed if that saves bytes. Readers accept both forms.
    pub compression: bool,
}

impl PubSubSettings {
    /// Creates settings for one project with the defaults: 24 hours of retention, and the emulator
    /// if `PUBSUB_EMULATOR_HOST` is set.
    pub fn new(project: impl Into<String>, replica: impl Into<String>) -> Self {
        Self::for_projects(vec![project.into()], replica)
    }

    /// Creates settings for several projects with the same defaults.
    pub fn for_projects(projects: Vec<String>, replica: impl Into<String>) -> Self {
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

    /// Checks what the service would reject; the emulator accepts most of it.
    pub(super) fn check(&self) -> Result<(), BusError> {
        let invalid = |reason: String| Err(BusError::Settings(reason));
        let is_valid = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | ':' | '.');
        if self.projects.is_empty() {
            return invalid("no Google Cloud project given; use --bus pubsub:PROJECT".to_owned());
        }
        for (index, project) in self.projects.iter().enumerate() {
            if project.is_empty() || project.len() > 100 || !project.chars().all(is_valid) {
                return invalid(format!(
                    "invalid Google Cloud project id {project:?}; use an id such as my-project"
                ));
            }
            if self.projects[..index].contains(project) {
                return invalid(format!("project {project} is given twice; name each project once"));
            }
        }
        if !RETENTION.contains(&self.retention) {
            return invalid(format!(
                "invalid retention of {} s: Pub/Sub supports 10 minutes to 31 days",
                self.retention.as_secs()
            ));
        }
        if !ACK_DEADLINE.contains(&self.ack_deadline) {
            return invalid(format!(
                "invalid ack deadline of {} s: Pub/Sub supports 10 to 600 s",
                self.ack_deadline.as_secs()
            ));
        }
        match &self.emulator {
            Some(host) if host.contains('/') || !host.contains(':') => {
                invalid(format!("invalid {EMULATOR_VARIABLE}={host}; use HOST:PORT"))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_the_service_would_reject_are_invalid() {
        let valid = PubSubSettings {
            emulator: Some("127.0.0.1:8085".to_owned()),
            ..PubSubSettings::new("my-project", "r")
        };
        assert!(valid.check().is_ok());
        for invalid in [
            PubSubSettings {
                projects: Vec::new(),
                ..valid.clone()
            },
            PubSubSettings {
                projects: vec![String::new()],
                ..valid.clone()
            },
            PubSubSettings {
                projects: vec!["My Project".to_owned()],
                ..valid.clone()
            },
            PubSubSettings {
                projects: ["one", "two", "one"].map(str::to_owned).into(),
                ..valid.clone()
            },
            PubSubSettings {
                retention: Duration::from_secs(60),
                ..valid.clone()
            },
            PubSubSettings {
                retention: Duration::from_secs(40 * 86_400),
                ..valid.clone()
            },
            PubSubSettings {
                emulator: Some("http://127.0.0.1:1".to_owned()),
                ..valid.clone()
            },
        ] {
            assert!(matches!(invalid.check(), Err(BusError::Settings(_))), "{invalid:?}");
        }
    }
}
