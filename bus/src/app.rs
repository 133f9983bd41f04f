//! Names of apps.

use std::{fmt, str::FromStr, sync::Arc};

/// The name of an app: the tenant whose logs are one unit.
///
/// *Shape*: 1 to 63 characters of `[A-Za-z0-9._-]`, starting and ending with a letter or a
/// digit. That is the shape of a Kubernetes label value (`metadata.labels`); namespace names are a
/// subset. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AppName(Arc<str>);

/// The text is not an app name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid app name {0:?}: use 1 to 63 letters, digits, '-', '_' or '.', starting and ending with a letter or digit"
)]
pub struct InvalidAppName(pub String);

impl AppName {
    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for AppName {
    type Err = InvalidAppName;

    fn from_str(text: &str) -> Result<Self, InvalidAppName> {
        let bytes = text.as_bytes();
        let is_end = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
        let fits = bytes.len() <= 63
            && is_end(bytes.first())
            && is_end(bytes.last())
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
