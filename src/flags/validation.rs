//! Values that clap cannot reject on its own, because they depend on other flags.

use std::fmt;

/// All invalid values of a command line, reported together.
#[derive(Debug)]
pub(crate) struct UsageError(Vec<String>);

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("; "))
    }
}

impl std::error::Error for UsageError {}

impl UsageError {
    /// Returns one message for each invalid value.
    pub(crate) fn messages(&self) -> &[String] {
        &self.0
    }
}

impl From<String> for UsageError {
    fn from(message: String) -> Self {
        Self(vec![message])
    }
}

/// Fails with all validation errors at once.
///
/// # Errors
/// [`UsageError`] if `errors` is not empty. Each entry names the flag, its value and a valid one.
pub(crate) fn reject(errors: Vec<String>) -> anyhow::Result<()> {
    if errors.is_empty() {
        return Ok(());
    }
    Err(UsageError(errors).into())
}
