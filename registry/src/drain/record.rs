//! A drain as it is stored.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};
use system::random::{random, random_range};
use url::Url;

use super::target::DrainTarget;
use crate::error::RegistryError;

/// All drains, by id.
pub type Drains = BTreeMap<u32, Drain>;

/// A receiver to which an app's lines are forwarded continuously.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drain {
    /// A random id from 1 to 2^31 - 1, which fits clients' `int`.
    pub id: u32,
    /// The app whose lines are forwarded.
    pub app: String,
    /// The drain token that receivers see: `d.` and a random UUID.
    pub token: String,
    /// The URL as it was given, including a password.
    pub url: String,
}

impl Drain {
    /// Parses the URL.
    ///
    /// # Errors
    /// What is wrong with a URL that another version accepted; the message contains no part of it.
    pub fn target(&self) -> Result<DrainTarget, &'static str> {
        let url =
            Url::parse(&self.url).map_err(|_| "the stored drain URL is invalid; remove the drain and add it again")?;
        DrainTarget::parse(&url)
    }

    /// The name of its durable subscription on the bus.
    pub fn subscription(&self) -> String {
        format!("drain-{}", self.id)
    }

    /// Checks that an app with these drains may have another one, with this URL.
    ///
    /// # Errors
    /// [`RegistryError::DuplicateDrain`], [`RegistryError::TooManyDrains`].
    pub(crate) fn check_new<'a>(
        mut of_app: impl Iterator<Item = &'a Self> + Clone,
        url: &str,
        max: usize,
    ) -> Result<(), RegistryError> {
        let count = of_app.clone().count();
        if of_app.any(|drain| drain.url == url) {
            return Err(RegistryError::DuplicateDrain);
        }
        if count >= max {
            return Err(RegistryError::TooManyDrains(count));
        }
        Ok(())
    }

    /// Creates a drain with a random id, for which `taken` is false, and a random token.
    pub(crate) fn new(app: &str, url: &str, taken: impl Fn(u32) -> bool) -> Self {
        let id = loop {
            let id = random_range(1..1 << 31);
            if !taken(id) {
                break id;
            }
        };
        Self {
            id,
            app: app.to_owned(),
            token: format!("d.{}", uuid(random())),
            url: url.to_owned(),
        }
    }
}

/// Omits the URL, which may contain a password.
impl fmt::Debug for Drain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Drain")
            .field("id", &self.id)
            .field("app", &self.app)
            .finish_non_exhaustive()
    }
}

/// A random UUID, version 4.
///
/// *Source*: RFC 9562, section 5.4.
fn uuid(random: u128) -> String {
    let bits = random & !(0xf << 76) & !(0x3 << 62) | (0x4 << 76) | (0x2 << 62);
    let hex = format!("{bits:032x}");
    let (a, b, c, d, e) = (&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]);
    format!("{a}-{b}-{c}-{d}-{e}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_have_version_4_and_the_rfc_variant() {
        assert_eq!(uuid(0), "00000000-0000-4000-8000-000000000000");
        assert_eq!(uuid(u128::MAX), "ffffffff-ffff-4fff-bfff-ffffffffffff");
    }

    #[test]
    fn debug_output_omits_the_password() {
        let drain = Drain::new("shop", "https://u:hunter2@example.com/", |_| false);
        assert!(!format!("{drain:?}").contains("hunter2"));
    }
}
