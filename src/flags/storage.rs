//! Retention and the data directory.

use std::{path::PathBuf, time::Duration};

use anyhow::Context;
use clap::Args;

/// How long lines are kept.
#[derive(Args)]
#[command(next_help_heading = "Storage")]
pub(crate) struct RetentionArgs {
    /// Keep lines as history for this long
    #[arg(
        long,
        env = "TRIBUTARY_RETENTION",
        value_name = "TIME",
        default_value = "1d",
        value_parser = crate::flags::values::duration
    )]
    pub(crate) retention: Duration,
}

impl RetentionArgs {
    /// Returns one message for each invalid value.
    pub(crate) fn validation_errors(&self) -> Vec<String> {
        if self.retention >= Duration::from_secs(60) {
            return Vec::new();
        }
        vec![format!(
            "--retention {}: set at least 1m",
            humantime::format_duration(self.retention)
        )]
    }
}

/// Returns `tributary` in the user's data directory (XDG Base Directory Specification).
///
/// # Errors
/// Fails if neither `XDG_DATA_HOME` nor `HOME` is set.
pub(crate) fn default_data_dir() -> anyhow::Result<PathBuf> {
    let variable = |name| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let base = variable("XDG_DATA_HOME").or_else(|| variable("HOME").map(|home| home.join(".local/share")));
    let base = base.context("no data directory: neither XDG_DATA_HOME nor HOME is set; set one with --data-dir")?;
    Ok(base.join("tributary"))
}
