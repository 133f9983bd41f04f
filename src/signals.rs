//! SIGTERM and Ctrl-C: finish what was accepted; again: leave at once.

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// What the signals ask for.
#[derive(Clone)]
pub(crate) struct Shutdown {
    /// The first SIGTERM or SIGINT: finish what was accepted, then end.
    pub(crate) graceful: CancellationToken,
    /// The second: end.
    pub(crate) immediate: CancellationToken,
}

/// Watches the signals.
///
/// # Errors
/// Where the system lets no signal be watched.
pub(crate) fn on_signal() -> anyhow::Result<Shutdown> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot watch SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot watch SIGINT")?;
    let shutdown = Shutdown {
        graceful: CancellationToken::new(),
        immediate: CancellationToken::new(),
    };
    let asked = shutdown.clone();
    tokio::spawn(async move {
        for token in [asked.graceful, asked.immediate] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::info!("told to stop: what was accepted is finished first, unless told again");
            token.cancel();
        }
    });
    Ok(shutdown)
}
