//! What our topics and subscriptions are called in a project that may hold others' too.
//!
//! *Source*: Pub/Sub resource names: 3 to 255 letters, digits and `-._~+%`, beginning with a letter. An app's name has 1 to 63 of `[A-Za-z0-9._-]`, so it stands
//! in its topic's name as it is, and is read back from it.

use crate::AppName;

const APP: &str = "tributary-app-";
const TAIL: &str = "tributary-tail";
const LIFE: &str = "tributary-life";
const DURABLE: &str = "tributary-sub";

/// The longest that a replica's name may be, so that what is built on it stays below 255.
const MAX_REPLICA: usize = 100;

/// The names of one project's resources.
#[derive(Clone, Debug)]
pub(super) struct Names {
    project: String,
    replica: String,
}

/// What a subscription of ours is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// A replica's reader of an app, while it reads.
    Tail {
        /// Whose.
        replica: String,
    },
    /// Says that a replica lived in this minute since 1970.
    Life {
        /// Whose.
        replica: String,
        /// When.
        minute: u64,
    },
}

impl Names {
    /// Of this project, for this replica, whose name is cut down to what a name may hold.
    pub(super) fn new(project: &str, replica: &str) -> Self {
        let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
        Self {
            project: project.to_owned(),
            replica: replica.chars().take(MAX_REPLICA).map(plain).collect(),
        }
    }

    /// The project, in full.
    pub(super) fn project(&self) -> String {
        format!("projects/{}", self.project)
    }

    /// This replica.
    pub(super) fn replica(&self) -> &str {
        &self.replica
    }

    /// An app's topic, in full.
    pub(super) fn topic(&self, app: &AppName) -> String {
        self.full_topic(&format!("{APP}{app}"))
    }

    /// The topic to which signs of life are subscriptions, in full. No message is ever published to it.
    pub(super) fn life_topic(&self) -> String {
        self.full_topic(LIFE)
    }

    /// The app of a topic, given in full; `None` where it is none of ours.
    pub(super) fn app(&self, topic: &str) -> Option<AppName> {
        last_part(topic).strip_prefix(APP)?.parse().ok()
    }

    /// A new subscription of this replica's, in full.
    pub(super) fn new_tail(&self) -> String {
        let random: u64 = rand::random();
        self.subscription(&format!("{TAIL}.{}.{random:016x}", self.replica))
    }

    /// This replica's sign of life for a minute, in full.
    pub(super) fn life(&self, minute: u64) -> String {
        self.subscription(&format!("{LIFE}.{}.{minute}", self.replica))
    }

    /// An app's durable subscription, in full. `name` is free: what is no letter, digit, `-` or `_` is written as `~` and two hex digits.
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

    /// The app of a durable subscription, given in full; `None` where it is none.
    pub(super) fn durable_app(&self, subscription: &str) -> Option<AppName> {
        // The part behind the last point is the free one: it holds none.
        let (kind, _) = last_part(subscription).rsplit_once('.')?;
        kind.strip_prefix(DURABLE)?.strip_prefix('.')?.parse().ok()
    }

    /// What a subscription, given in full, is for; `None` where it is none that a sweep may touch.
    pub(super) fn purpose(&self, subscription: &str) -> Option<Use> {
        let mut parts = last_part(subscription).split('.');
        let (kind, replica, last) = (parts.next()?, parts.next()?.to_owned(), parts.next()?);
        match (kind, parts.next()) {
            (TAIL, None) => Some(Use::Tail { replica }),
            (LIFE, None) => Some(Use::Life {
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
    fn a_sweep_knows_what_is_whose_and_leaves_the_rest_alone() {
        let names = Names::new("p", "streamer-7d4b9c.x2:8080");
        let tail = names.new_tail();
        let replica = "streamer-7d4b9c-x2-8080".to_owned();
        assert_eq!(
            names.purpose(&tail),
            Some(Use::Tail {
                replica: replica.clone()
            })
        );
        assert_ne!(tail, names.new_tail());
        assert_eq!(names.purpose(&names.life(7)), Some(Use::Life { replica, minute: 7 }));
        let shop = "shop".parse().unwrap();
        for other in [
            names.durable(&shop, "drain-1"),
            names.topic(&shop),
            "projects/p/subscriptions/somebodys".to_owned(),
            "projects/p/subscriptions/tributary-life.x.soon".to_owned(),
        ] {
            assert_eq!(names.purpose(&other), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn every_app_has_a_topic_that_names_it(name in "[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?") {
            let names = Names::new("p", "r");
            let app: AppName = name.parse().unwrap();
            prop_assert_eq!(names.app(&names.topic(&app)), Some(app));
        }

        #[test]
        fn no_two_subscriptions_share_a_name(one in ".{0,20}", other in ".{0,20}") {
            let names = Names::new("p", "r");
            let app: AppName = "a.b".parse().unwrap();
            prop_assert_eq!(names.durable(&app, &one) == names.durable(&app, &other), one == other);
            prop_assert_eq!(names.durable_app(&names.durable(&app, &one)), Some(app));
        }
    }
}
