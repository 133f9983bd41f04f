//! The flags of `up` and `demo`, which run every service in one process.

use bytesize::ByteSize;
use clap::Args;

use crate::flags::{
    admin::AdminArgs, collecting::CollectArgs, reading::ReadArgs, registry::RegistryArgs, storage::RetentionArgs,
    validation::reject,
};

/// The smallest `--retention-bytes`.
const MIN_RETENTION: ByteSize = ByteSize::mb(16);

/// Flags of all services.
#[derive(Args)]
pub(crate) struct StackArgs {
    #[command(flatten)]
    pub(crate) read: ReadArgs,
    #[command(flatten)]
    pub(crate) collect: CollectArgs,
    #[command(flatten)]
    pub(crate) retention: RetentionArgs,
    /// Keep at most this many bytes of lines; apps above an even share lose their oldest lines
    /// first
    #[arg(
        long,
        env = "TRIBUTARY_RETENTION_BYTES",
        value_name = "BYTES",
        default_value = "1GB",
        value_parser = crate::flags::values::bytes,
        help_heading = "Storage"
    )]
    pub(crate) retention_bytes: ByteSize,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
}

impl StackArgs {
    /// Checks all values.
    ///
    /// # Errors
    /// All invalid values at once.
    pub(crate) fn validate(&self) -> anyhow::Result<()> {
        let mut errors = self.read.validation_errors();
        errors.extend(self.retention.validation_errors());
        if self.retention_bytes < MIN_RETENTION {
            errors.push(format!("--retention-bytes {}: set at least 16MB", self.retention_bytes));
        }
        errors.extend(self.collect.validation_errors());
        reject(errors)
    }
}
