//! SIGTERM and SIGINT: the first starts a graceful shutdown, the second exits at once.

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio_stream::{StreamExt, wrappers::SignalStream};
use tokio_util::sync::CancellationToken;

/// The two stages of a shutdown.
#[derive(Clone)]
pub(crate) struct Shutdown {
    /// Cancelled by the first SIGTERM or SIGINT: finish accepted work, then exit.
    pub(crate) graceful: CancellationToken,
    /// Cancelled by the second: exit at once.
    pub(crate) immediate: CancellationToken,
}

/// Installs the signal handlers. Requires a Tokio runtime.
///
/// # Errors
/// Fails if the operating system refuses a handler.
pub(crate) fn shutdown_on_signals() -> anyhow::Result<Shutdown> {
    let terminate = signal(SignalKind::terminate()).context("cannot install a handler for SIGTERM")?;
    let interrupt = signal(SignalKind::interrupt()).context("cannot install a handler for SIGINT")?;
    let mut signals = SignalStream::new(terminate).merge(SignalStream::new(interrupt));
    let shutdown = Shutdown {
        graceful: CancellationToken::new(),
        immediate: CancellationToken::new(),
    };
    let tokens = shutdown.clone();
    tokio::spawn(async move {
        signals.next().await;
        tracing::info!("graceful shutdown started");
        tokens.graceful.cancel();
        signals.next().await;
        tracing::info!("immediate shutdown");
        tokens.immediate.cancel();
    });
    Ok(shutdown)
}
