//! Names of topics and subscriptions, in a project that may hold other systems' resources.
//!
//! *Source*: Pub/Sub resource names: 3 to 255 letters, digits and `-._~+%`, starting with a letter.
//! An app name has 1 to 63 of `[A-Za-z0-9._-]`, so a topic's name contains it verbatim.

use crate::AppName;

const APP: &str = "tributary-app-";
const TAIL: &str = "tributary-tail";
const HEARTBEAT: &str = "tributary-life";
const DURABLE: &str = "tributary-sub";

/// Maximum length of a replica's name, so that names that contain it stay below 255.
const MAX_REPLICA: usize = 100;

/// Names of one project's resources.
#[derive(Clone, Debug)]
pub(super) struct Names {
    project: String,
    replica: String,
}

/// Purpose of a subscription that a sweep may delete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A temporary subscription of a replica's reader.
    Tail {
        /// The replica.
        replica: String,
    },
    /// A replica's heartbeat.
    Heartbeat {
        /// The replica.
        replica: String,
        /// Minutes since 1970.
        minute: u64,
    },
}

impl Names {
    /// Creates the names of a project for a replica, whose name is reduced to valid characters.
    pub(super) fn new(project: &str, replica: &str) -> Self {
        let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
        Self {
            project: project.to_owned(),
            replica: replica.chars().take(MAX_REPLICA).map(plain).collect(),
        }
    }

    /// Returns the full name of the project.
    pub(super) fn project(&self) -> String {
        format!("projects/{}", self.project)
    }

    /// Returns the name of this replica.
    pub(super) fn replica(&self) -> &str {
        &self.replica
    }

    /// Returns the full name of an app's topic.
    pub(super) fn topic(&self, app: &AppName) -> String {
        self.full_topic(&format!("{APP}{app}"))
    }

    /// Returns the full name of the topic of heartbeat subscriptions. It receives no messages.
    pub(super) fn heartbeat_topic(&self) -> String {
        self.full_topic(HEARTBEAT)
    }

    /// Returns the app of a topic's full name; `None` for other topics.
    pub(super) fn app(&self, topic: &str) -> Option<AppName> {
        last_part(topic).strip_prefix(APP)?.parse().ok()
    }

    /// Returns the full name of a new temporary subscription of this replica.
    pub(super) fn new_tail(&self) -> String {
        let random: u64 = system::random::random();
        self.subscription(&format!("{TAIL}.{}.{random:016x}", self.replica))
    }

    /// Returns the full name of this replica's heartbeat of a minute.
    pub(super) fn heartbeat(&self, minute: u64) -> String {
        self.subscription(&format!("{HEARTBEAT}.{}.{minute}", self.replica))
    }

    /// Returns the full name of an app's durable subscription. In `name`, bytes other than letters,
    /// digits, `-` and `_` are written as `~` and two hex digits.
    pub(super) fn durable(&self, app: &AppName, name: &str) -> String {
        let mut id = format!("{DURABLE}.{app}.");
        for byte in name.bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => id.push(char::from(byte)),
                _ => id.push_str(&format!("~{byte:02x}")),
            }
        }
        self.subscription(&id)
    }

    /// Returns the app of a durable subscription's full name; `None` for other subscriptions.
    pub(super) fn durable_app(&self, subscription: &str) -> Option<AppName> {
        // The encoded name after the last point contains no point.
        let (kind, _) = last_part(subscription).rsplit_once('.')?;
        kind.strip_prefix(DURABLE)?.strip_prefix('.')?.parse().ok()
    }

    /// Returns the purpose of a subscription's full name; `None` if a sweep must not delete it.
    pub(super) fn purpose(&self, subscription: &str) -> Option<Purpose> {
        let mut parts = last_part(subscription).split('.');
        let (kind, replica, last) = (parts.next()?, parts.next()?.to_owned(), parts.next()?);
        match (kind, parts.next()) {
            (TAIL, None) => Some(Purpose::Tail { replica }),
            (HEARTBEAT, None) => Some(Purpose::Heartbeat {
                replica,
                minute: last.parse().ok()?,
            }),
            _ => None,
        }
    }

    fn full_topic(&self, id: &str) -> String {
        format!("projects/{}/topics/{id}", self.project)
    }

    fn subscription(&self, id: &str) -> String {
        format!("projects/{}/subscriptions/{id}", self.project)
    }
}

fn last_part(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_purpose_of_own_subscriptions_is_known_and_of_others_is_none() {
        let names = Names::new("p", "streamer-7d4b9c.x2:8080");
        let tail = names.new_tail();
        let replica = "streamer-7d4b9c-x2-8080".to_owned();
        assert_eq!(
            names.purpose(&tail),
            Some(Purpose::Tail {
                replica: replica.clone()
            })
        );
        assert_ne!(tail, names.new_tail());
        assert_eq!(
            names.purpose(&names.heartbeat(7)),
            Some(Purpose::Heartbeat { replica, minute: 7 })
        );
        let shop = "shop".parse().unwrap();
        for other in [
            names.durable(&shop, "drain-1"),
            names.topic(&shop),
            "projects/p/subscriptions/unrelated".to_owned(),
            "projects/p/subscriptions/tributary-life.x.soon".to_owned(),
        ] {
            assert_eq!(names.purpose(&other), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn the_topic_of_an_app_names_the_app(name in "[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?") {
            let names = Names::new("p", "r");
            let app: AppName = name.parse().unwrap();
            prop_assert_eq!(names.app(&names.topic(&app)), Some(app));
        }

        #[test]
        fn different_durable_subscriptions_have_different_names(one in ".{0,20}", other in ".{0,20}") {
            let names = Names::new("p", "r");
            let app: AppName = "a.b".parse().unwrap();
            prop_assert_eq!(names.durable(&app, &one) == names.durable(&app, &other), one == other);
            prop_assert_eq!(names.durable_app(&names.durable(&app, &one)), Some(app));
        }
    }
}
