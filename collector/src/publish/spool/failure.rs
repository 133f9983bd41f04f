//! Whether the disk accepts the spool.

use std::{io, path::Path, time::Duration};

use parking_lot::Mutex;
use system::{
    clock::{Instant, since, steady},
    files,
};

use crate::metrics::Metrics;

/// How often a failure that lasts is logged.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// Bytes of a probe: a block, for which a full disk has no room.
const PROBE_BYTES: usize = 4096;

/// Why the spool cannot be written.
#[derive(Default)]
pub struct Failure(Mutex<State>);

#[derive(Default)]
struct State {
    reason: Option<String>,
    logged: Option<Instant>,
}

impl Failure {
    /// Records the result of a write.
    pub fn record(&self, written: &io::Result<()>, metrics: &Metrics) {
        let mut state = self.0.lock();
        match written {
            Ok(()) => {
                if state.reason.take().is_some() {
                    tracing::info!("spool writes work again");
                }
            }
            Err(error) => {
                metrics.spool_write_failures.inc();
                state.reason = Some(format!("cannot write the spool: {error}"));
                if state.logged.is_none_or(|logged| since(logged) >= LOG_EVERY) {
                    state.logged = Some(steady());
                    tracing::error!(%error, "spool write failed, buffering in memory");
                }
            }
        }
    }

    /// Returns why the last write failed. After a failure it writes a file: nothing may need the
    /// spool for a while.
    pub fn check(&self, dir: &Path, metrics: &Metrics) -> Option<String> {
        if self.0.lock().reason.is_some() {
            let path = dir.join("probe");
            let probed = files::create_dir_all(dir)
                .and_then(|()| files::replace(&path, &[0; PROBE_BYTES]))
                .and_then(|()| files::remove_file(&path));
            self.record(&probed, metrics);
        }
        self.0.lock().reason.clone()
    }
}
