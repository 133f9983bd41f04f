//! A place where an app's lines go.

use std::fmt;

use rand::RngExt;
use serde::{Deserialize, Serialize};
use url::Url;

use super::target::Target;
use crate::error::RegistryError;

/// A place where an app's lines are forwarded for good.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drain {
    /// Random, positive, below 2^31: clients keep it in an `int`.
    pub id: u32,
    /// Whose lines.
    pub app: String,
    /// What the receiver knows the drain by: `d.` and a random UUID.
    pub token: String,
    /// Where they go, as it was typed: with its password.
    pub url: String,
}

impl Drain {
    /// What its URL means.
    ///
    /// # Errors
    /// What is wrong with it, without words of it: another version may have taken it.
    pub fn target(&self) -> Result<Target, &'static str> {
        let url = Url::parse(&self.url).map_err(|_| "its URL cannot be read")?;
        Target::of(&url)
    }

    /// What its durable subscription on the bus is called.
    pub fn subscription(&self) -> String {
        format!("drain-{}", self.id)
    }

    /// Whether an app with these drains may have another, to this URL.
    ///
    /// # Errors
    /// [`RegistryError::Duplicate`], [`RegistryError::TooMany`].
    pub(crate) fn fits<'a>(
        mut of_app: impl Iterator<Item = &'a Self> + Clone,
        url: &str,
        most: usize,
    ) -> Result<(), RegistryError> {
        let count = of_app.clone().count();
        if of_app.any(|drain| drain.url == url) {
            return Err(RegistryError::Duplicate);
        }
        if count >= most {
            return Err(RegistryError::TooMany(count));
        }
        Ok(())
    }

    /// Names a new drain.
    pub(crate) fn new(app: &str, url: &str, taken: impl Fn(u32) -> bool) -> Self {
        let mut rng = rand::rng();
        let id = loop {
            let id = rng.random_range(1..1 << 31);
            if !taken(id) {
                break id;
            }
        };
        Self {
            id,
            app: app.to_owned(),
            token: format!("d.{}", uuid(rng.random())),
            url: url.to_owned(),
        }
    }
}

/// Without the URL: it carries a password.
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
    fn a_uuid_says_that_it_is_random() {
        assert_eq!(uuid(0), "00000000-0000-4000-8000-000000000000");
        assert_eq!(uuid(u128::MAX), "ffffffff-ffff-4fff-bfff-ffffffffffff");
    }

    #[test]
    fn a_debug_print_has_no_password_in_it() {
        let drain = Drain::new("shop", "https://u:hunter2@example.com/", |_| false);
        assert!(!format!("{drain:?}").contains("hunter2"));
    }
}
