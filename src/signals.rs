//! SIGTERM and SIGINT. For a service, the first starts a graceful shutdown and the second exits at
//! once; for any other command, the first exits at once.

use anyhow::Context;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::oneshot,
};
use tokio_stream::{StreamExt, wrappers::SignalStream};
use tokio_util::sync::CancellationToken;

/// Exit codes after a signal: 128 plus its number.
const INTERRUPTED: u8 = 130;
const TERMINATED: u8 = 143;

/// The two stages of a shutdown.
pub(crate) struct Shutdown {
    /// Cancelled by the first SIGTERM or SIGINT of a service: finish accepted work, then exit.
    pub(crate) graceful: CancellationToken,
    /// Receives the exit code when the process must exit at once.
    pub(crate) immediate: oneshot::Receiver<u8>,
}

/// Installs the signal handlers. Requires a Tokio runtime.
///
/// # Errors
/// Fails if the operating system refuses a handler.
pub(crate) fn shutdown_on_signals(is_graceful: bool) -> anyhow::Result<Shutdown> {
    let terminate = signal(SignalKind::terminate()).context("cannot install a handler for SIGTERM")?;
    let interrupt = signal(SignalKind::interrupt()).context("cannot install a handler for SIGINT")?;
    let terminate = SignalStream::new(terminate).map(|()| TERMINATED);
    let mut signals = terminate.merge(SignalStream::new(interrupt).map(|()| INTERRUPTED));
    let (exit, immediate) = oneshot::channel();
    let graceful = CancellationToken::new();
    let token = graceful.clone();
    tokio::spawn(async move {
        let mut code = signals.next().await;
        if is_graceful {
            tracing::info!("graceful shutdown started");
            token.cancel();
            signals.next().await;
            tracing::info!("immediate shutdown");
            code = Some(INTERRUPTED);
        }
        // The receiver is gone if the command has ended.
        let _ = exit.send(code.unwrap_or(INTERRUPTED));
    });
    Ok(Shutdown { graceful, immediate })
}
