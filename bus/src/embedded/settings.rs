//! Settings of the embedded bus.

use std::time::Duration;

/// Limits of what the embedded bus stores.
#[derive(Clone, Copy, Debug)]
pub struct EmbeddedSettings {
    /// Maximum age of a batch.
    pub retention: Duration,
    /// Maximum bytes of all batches. Each app is guaranteed an equal share: apps above their share
    /// lose their oldest batches first.
    ///
    /// The files may exceed this by a sixteenth and one segment (4 MiB) per app.
    pub retention_bytes: u64,
}

impl Default for EmbeddedSettings {
    /// 24 hours and 1 GB.
    fn default() -> Self {
        Self {
            retention: Duration::from_secs(24 * 3600),
            retention_bytes: 1_000_000_000,
        }
    }
}
