//! Whether the disk accepts the spool.

use std::{io, path::Path};

use parking_lot::Mutex;
use system::files::{self, Outage};

use crate::metrics::Metrics;

/// Why the spool cannot be written.
#[derive(Default)]
pub struct Failure(Mutex<Outage>);

impl Failure {
    /// Records the result of a write.
    pub fn record(&self, written: &io::Result<()>, metrics: &Metrics) {
        let mut outage = self.0.lock();
        let Err(error) = written else {
            if outage.record_success().is_some() {
                tracing::info!("spool writes work again");
            }
            return;
        };
        metrics.spool_write_failures.inc();
        if outage.record_failure(format!("cannot write the spool: {error}")) {
            tracing::error!(%error, "spool write failed, buffering in memory");
        }
    }

    /// Returns why the last write failed. After a failure it writes a file: nothing may need the
    /// spool for a while.
    pub fn check(&self, dir: &Path, metrics: &Metrics) -> Option<String> {
        if self.0.lock().reason().is_some() {
            let probed = files::create_dir_all(dir).and_then(|()| files::probe(dir));
            self.record(&probed, metrics);
        }
        self.0.lock().reason().map(str::to_owned)
    }
}
