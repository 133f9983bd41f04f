//! Parsers of flag values.

use std::time::Duration;

/// Parses a duration such as `30s`, `5m`, `1h30m` or `1d`.
///
/// # Errors
/// The expected form.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| "expected a duration such as 30s, 5m, 1h30m or 1d".to_owned())
}
