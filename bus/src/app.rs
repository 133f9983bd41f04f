//! The tenant's name.

use std::{fmt, str::FromStr, sync::Arc};

/// The name of an app: the tenant whose lines are kept together.
///
/// *Shape*: 1 to 63 characters of `[A-Za-z0-9._-]`, first and last a letter or a digit. That is a Kubernetes label value
/// (`metadata.labels`), of which a namespace name is the stricter case, so whatever names an app in Kubernetes fits. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AppName(Arc<str>);

/// What is wrong with a text that should name an app.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not an app name: 1 to 63 letters, digits, '-', '_' or '.', beginning and ending with a letter or a digit"
)]
pub struct InvalidAppName(pub String);

impl AppName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for AppName {
    type Err = InvalidAppName;

    fn from_str(text: &str) -> Result<Self, InvalidAppName> {
        let bytes = text.as_bytes();
        let ends_well = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
        let fits = bytes.len() <= 63
            && ends_well(bytes.first())
            && ends_well(bytes.last())
            && bytes
                .iter()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
        if fits {
            Ok(Self(text.into()))
        } else {
            Err(InvalidAppName(text.chars().take(80).collect()))
        }
    }
}

impl fmt::Display for AppName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for AppName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
